"""What a baseline knows of a server: its own counts, and the last polled metrics."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from random import Random

from gateway.scheduling.model import BackendId, BackendLoad, InferenceRequest

BYTES_PER_TOKEN = 4.2
"""How baselines turn prompt bytes into tokens (the workloads' mean)."""
PREFIX_BLOCKS_KEPT = 100_000
_NO_LOAD = BackendLoad()


def estimated_tokens(request: InferenceRequest) -> int:
    """Prompt tokens as a router without the model's tokenizer takes them to be."""
    return max(1, round(request.prompt_bytes / BYTES_PER_TOKEN))


class ServerView:
    """One server.

    Attributes:
        outstanding: requests sent there that have not ended.
        prefill_tokens: estimated uncached prompt tokens of those without a first token.
        load: the last polled metrics.
    """

    __slots__ = ("_blocks", "id", "load", "outstanding", "prefill_tokens")

    def __init__(self, backend_id: BackendId) -> None:
        """An idle server that has not been polled yet."""
        self.id = backend_id
        self.outstanding = 0
        self.prefill_tokens = 0
        self.load = _NO_LOAD
        self._blocks: OrderedDict[tuple[str, int], None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue, as polled."""
        return self.load.waiting or 0

    @property
    def kv_usage(self) -> float:
        """Share of KV blocks in use, as polled."""
        return self.load.kv_usage or 0.0

    def matched_share(self, request: InferenceRequest) -> float:
        """Share of the request's prefix blocks that were sent here before and not pushed out."""
        blocks = request.prefix_blocks
        if not blocks:
            return 0.0
        matched = 0
        for block in blocks:
            if (request.model, block) not in self._blocks:
                break
            matched += 1
        return matched / len(blocks)

    def remember(self, request: InferenceRequest) -> None:
        """The request's prefix blocks are on this server from now on (LRU)."""
        for block in request.prefix_blocks:
            self._blocks[request.model, block] = None
            self._blocks.move_to_end((request.model, block))
        while len(self._blocks) > PREFIX_BLOCKS_KEPT:
            self._blocks.popitem(last=False)


def least(
    servers: Sequence[ServerView], key: Callable[[ServerView], float], rng: Random
) -> ServerView:
    """The server with the smallest value; ties uniform. `servers` is not empty."""
    best: list[ServerView] = []
    smallest = float("inf")
    for server in servers:
        value = key(server)
        if value < smallest:
            smallest, best = value, [server]
        elif value == smallest:
            best.append(server)
    return best[0] if len(best) == 1 else best[int(rng.random() * len(best))]


def outstanding(server: ServerView) -> int:
    """Key of least outstanding."""
    return server.outstanding
