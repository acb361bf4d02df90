"""`least_outstanding`: fewest own requests in flight, ties uniform (Envoy and nginx `least_conn`).

Counts are the router's own and have no age.
"""

from collections.abc import Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, least, outstanding
from gateway.scheduling.model import InferenceRequest


class LeastOutstanding:
    """Fewest in flight."""

    def __init__(self, rng: Random) -> None:
        """Break ties with `rng`."""
        self._rng = rng

    def pick(
        self, _request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The server with the fewest requests in flight."""
        del now
        return least(servers, outstanding, self._rng)
