"""`lora_hash`: rendezvous hashing of the adapter's name, with bounded load.

Servers are ordered by the hash of (model, server); the first whose requests in flight stay within
1.25 times the mean takes the request. Sources: Thaler and Ravishankar 1998 (highest random
weight); Mirrokni, Thorup, Zadimoghaddam 2018 (bounded loads).
"""

import math
from collections.abc import Sequence
from hashlib import blake2b

from gateway.policy_benchmark.baselines.server_view import ServerView
from gateway.scheduling.model import InferenceRequest

LOAD_FACTOR = 1.25


class LoraHash:
    """Highest random weight within the bound."""

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView:
        """The first server in the model's order that has room."""
        del now
        total = sum(server.outstanding for server in servers) + 1
        limit = math.ceil(LOAD_FACTOR * total / len(servers))
        return max(
            (server for server in servers if server.outstanding < limit),
            key=lambda server: _weight(request.model, server),
        )


def _weight(model: str, server: ServerView) -> bytes:
    return blake2b(f"{model} {server.id}".encode(), digest_size=8).digest()
