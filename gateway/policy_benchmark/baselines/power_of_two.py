"""`p2c`: of two servers drawn at random the one with fewer own requests in flight.

Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 2001.
"""

from collections.abc import Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, least, outstanding
from gateway.scheduling.model import InferenceRequest


class PowerOfTwo:
    """Two draws without replacement."""

    def __init__(self, rng: Random) -> None:
        """Draw from `rng`."""
        self._rng = rng

    def pick(
        self, _request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The less loaded of two."""
        del now
        pair = self._rng.sample(servers, min(2, len(servers)))
        return least(pair, outstanding, self._rng)
