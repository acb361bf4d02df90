"""`round_robin`: servers in turn (the default of nginx and of Kubernetes services in IPVS mode)."""

from collections.abc import Sequence

from gateway.policy_benchmark.baselines.server_view import ServerView
from gateway.scheduling.model import InferenceRequest


class RoundRobin:
    """A counter."""

    def __init__(self) -> None:
        """Start at the first server."""
        self._next = 0

    def pick(
        self, _request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The next server in order."""
        del now
        server = servers[self._next % len(servers)]
        self._next += 1
        return server
