"""`least_kv` and `least_queue`: the server whose last polled metric is smallest, ties uniform.

The metric is KV use, or the engine's own queue, as many routers read them from /metrics. Between
two polls all arrivals go to the same server: the herd.
"""

from collections.abc import Callable, Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, least
from gateway.scheduling.model import InferenceRequest


def polled_kv(server: ServerView) -> float:
    """Key of `least_kv`."""
    return server.kv_usage


def polled_queue(server: ServerView) -> float:
    """Key of `least_queue`."""
    return server.waiting


class LeastPolled:
    """Smallest polled value."""

    def __init__(self, key: Callable[[ServerView], float], rng: Random) -> None:
        """Compare by `key`, break ties with `rng`."""
        self._key = key
        self._rng = rng

    def pick(
        self, _request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The server with the smallest value."""
        del now
        return least(servers, self._key, self._rng)
