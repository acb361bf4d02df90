"""`filter_tree`: the scheduler of the original Kubernetes LLM instance gateway.

Source: gateway-api-inference-extension v0.1, pkg/ext-proc/scheduling. Metrics polled every 50 ms.
Critical: among servers with fewer than 128 waiting: LoRA filter, least queue, least KV; if there
are none: least queue, LoRA filter, least KV over all. Non-Critical: only servers with at most 5
waiting and KV use at most .8, then as Critical; none: refused. Least-X keeps all within
`[min, min + (max - min)/n]`. LoRA filter: servers where the adapter is active, else those with a
free slot, else all; where both kinds exist the first is taken with probability .999. Of what is
left one is drawn uniformly.
"""

from collections.abc import Callable, Collection, Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView
from gateway.scheduling.model import InferenceRequest, ServiceName

_LOW_QUEUE = 128
_SHEDDABLE_QUEUE = 5
_SHEDDABLE_KV = 0.8
_AFFINITY = 0.999


class FilterTree:
    """The tree of filters."""

    def __init__(self, critical: Collection[ServiceName], rng: Random) -> None:
        """`critical` names the Critical services; draws come from `rng`."""
        self._critical = frozenset(critical)
        self._rng = rng

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView | None:
        """The tree's choice, or None for a Non-Critical request that no server has room for."""
        del now
        if request.service not in self._critical:
            servers = [
                s for s in servers if s.waiting <= _SHEDDABLE_QUEUE and s.kv_usage <= _SHEDDABLE_KV
            ]
            if not servers:
                return None
        short = [server for server in servers if server.waiting < _LOW_QUEUE]
        if short:
            left = _least(self._by_adapter(short, request.model), lambda s: s.waiting)
        else:
            left = self._by_adapter(_least(servers, lambda s: s.waiting), request.model)
        left = _least(left, lambda s: s.kv_usage)
        return left[int(self._rng.random() * len(left))]

    def _by_adapter(self, servers: Sequence[ServerView], adapter: str) -> Sequence[ServerView]:
        active = [s for s in servers if adapter in (s.load.active_adapters or ())]
        free = [
            s
            for s in servers
            if adapter not in (s.load.active_adapters or ())
            and len(s.load.active_adapters or ()) < (s.load.max_loras or 0)
        ]
        if active and free:
            return active if self._rng.random() < _AFFINITY else free
        return active or free or servers


def _least(
    servers: Sequence[ServerView], value: Callable[[ServerView], float]
) -> Sequence[ServerView]:
    values = [value(server) for server in servers]
    low, high = min(values), max(values)
    limit = low + (high - low) / len(servers)
    return [server for server, x in zip(servers, values, strict=True) if x <= limit]
