"""`probabilistic_shed`: Non-Critical requests are refused with a chance that grows with saturation.

`p = min(300 * sat^5, 1)` with `sat` the mean over servers of `max(waiting / 5, kv / .8)`, on polled
metrics; what is admitted goes to the server with the fewest own requests in flight. Source: the
inference extension's saturation thresholds (queue 5, KV .8), probabilistic variant.
"""

from collections.abc import Collection, Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, least, outstanding
from gateway.scheduling.model import InferenceRequest, ServiceName


class ProbabilisticShed:
    """Least outstanding behind a random gate."""

    def __init__(self, critical: Collection[ServiceName], rng: Random) -> None:
        """`critical` names the services that are never refused; draws come from `rng`."""
        self._critical = frozenset(critical)
        self._rng = rng

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView | None:
        """The least loaded server, or None."""
        del now
        if request.service not in self._critical:
            loads = [max(s.waiting / 5.0, s.kv_usage / 0.8) for s in servers]
            saturation = sum(loads) / len(loads)
            if self._rng.random() < min(300.0 * saturation**5, 1.0):
                return None
        return least(servers, outstanding, self._rng)
