"""`prefix_aware`: longest prefix match within a load bound, else least outstanding.

The server with the longest match is taken if its own requests in flight are at most 1.25 times the
mean over all (this one included); otherwise, and without any match, least outstanding. Source: the
bound is that of consistent hashing with bounded loads, as in KubeAI's prefix hash.
"""

from collections.abc import Sequence
from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, least, outstanding
from gateway.scheduling.model import InferenceRequest

LOAD_FACTOR = 1.25


class PrefixAware:
    """Longest match within the bound."""

    def __init__(self, rng: Random) -> None:
        """Break ties with `rng`."""
        self._rng = rng

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The best match that is not overloaded."""
        del now
        best = least(servers, lambda server: -server.matched_share(request), self._rng)
        mean = (sum(server.outstanding for server in servers) + 1) / len(servers)
        if best.matched_share(request) > 0.0 and best.outstanding <= LOAD_FACTOR * mean:
            return best
        return least(servers, outstanding, self._rng)
