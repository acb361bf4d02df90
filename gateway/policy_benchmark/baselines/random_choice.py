"""`random`: any server, uniformly. The floor of every comparison."""

from collections.abc import Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView
from gateway.scheduling.model import InferenceRequest


class RandomChoice:
    """Uniform draws."""

    def __init__(self, rng: Random) -> None:
        """Draw from `rng`."""
        self._rng = rng

    def pick(
        self, _request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """A server at random."""
        del now
        return servers[int(self._rng.random() * len(servers))]
