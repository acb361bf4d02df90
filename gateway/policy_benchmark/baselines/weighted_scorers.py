"""`weighted_scorers`: sum of weighted scores, the highest wins, ties uniform.

Scores in 0..1: queue `(max - q) / (max - min)` (1 when all are equal), KV `1 - use`, prefix
`matched blocks / blocks`. Weights 2, 2, 3 are the defaults of the inference extension's
scheduling profile; `weighted_scorers:equal` has 1, 1, 1. Queue and KV are polled.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from gateway.policy_benchmark.baselines.server_view import ServerView, least
from gateway.scheduling.model import InferenceRequest


class ScorerWeights(NamedTuple):
    """Weights of the three scores."""

    queue: float = 2.0
    kv: float = 2.0
    prefix: float = 3.0


class WeightedScorers:
    """Highest score."""

    def __init__(self, weights: ScorerWeights, rng: Random) -> None:
        """Break ties with `rng`."""
        self._weights = weights
        self._rng = rng

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The server with the highest sum."""
        del now
        low = min(server.waiting for server in servers)
        high = max(server.waiting for server in servers)
        weights = self._weights

        def cost(server: ServerView) -> float:
            queue = (high - server.waiting) / (high - low) if high > low else 1.0
            score = weights.queue * queue + weights.kv * (1.0 - server.kv_usage)
            return -(score + weights.prefix * server.matched_share(request))

        return least(servers, cost, self._rng)
