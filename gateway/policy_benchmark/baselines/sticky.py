"""`sticky`: stay with the prefix until the server falls too far behind.

Servers that hold at least .8 of the request's prefix blocks are affine; of them the one with the
fewest uncached prefill tokens in flight is taken, unless it has more than `tau = R_peak * T_max`
above the least of all servers; then, and without an affine server, that least one. R_peak is the
server's prefill rate (1 / c3 tokens/s), T_max the delay one is willing to pay for affinity (half of
the request's TTFT objective, 1 s without one). After llm-d's prefix affinity filter, with prefill
work in flight in the place of its predicted latency penalty.
"""

from collections.abc import Mapping, Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, least
from gateway.scheduling.model import InferenceRequest, ServiceName

AFFINE_SHARE = 0.8


def _prefill(server: ServerView) -> int:
    return server.prefill_tokens


class Sticky:
    """Affinity within a bound on the gap of prefill work."""

    def __init__(self, tau_tokens: Mapping[ServiceName, float], rng: Random) -> None:
        """`tau_tokens`: the largest gap per service (0 if not named); `rng` breaks ties."""
        self._tau_tokens = tau_tokens
        self._rng = rng

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The affine server, or the one with the least prefill work."""
        del now
        idlest = least(servers, _prefill, self._rng)
        affine = [s for s in servers if s.matched_share(request) >= AFFINE_SHARE]
        if not affine:
            return idlest
        nearest = least(affine, _prefill, self._rng)
        gap = nearest.prefill_tokens - idlest.prefill_tokens
        return nearest if gap <= self._tau_tokens.get(request.service, 0.0) else idlest
