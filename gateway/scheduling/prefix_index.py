"""Which prompt prefixes one server probably still holds in its KV cache.

vLLM keeps the KV blocks of finished prompts until it needs their room, least recently used first,
apart for each adapter. We see prompts, not blocks: a prompt's leading blocks come as chained hashes
(each covers everything before it), and what we dispatched is what the server has cached.
"""

from collections import OrderedDict


class PrefixIndex:
    """A bounded LRU of (adapter, chained hash) of one server.

    A prefix is touched from its end to its start, so that its end is always dropped first and
    what is held of a prompt is a prefix of it: the longest match is found by bisection.
    """

    __slots__ = ("_blocks", "capacity_blocks")

    def __init__(self, *, capacity_blocks: int) -> None:
        """Start empty; `capacity_blocks` bounds the number of hashes kept."""
        self.capacity_blocks = capacity_blocks
        self._blocks: OrderedDict[tuple[str | None, int], None] = OrderedDict()

    def __len__(self) -> int:
        """Number of hashes kept."""
        return len(self._blocks)

    def match(self, adapter: str | None, blocks: tuple[int, ...]) -> int:
        """How many of the leading `blocks` are held."""
        held = self._blocks
        if not blocks or (adapter, blocks[0]) not in held:
            return 0
        low, high = 1, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            if (adapter, blocks[middle - 1]) in held:
                low = middle
            else:
                high = middle - 1
        return low

    def add(self, adapter: str | None, blocks: tuple[int, ...]) -> None:
        """Note that the server computes (or reuses) these blocks now."""
        held = self._blocks
        for block in reversed(blocks):
            key = (adapter, block)
            if key in held:
                held.move_to_end(key)
            else:
                held[key] = None
        while len(held) > self.capacity_blocks:
            held.popitem(last=False)

    def clear(self) -> None:
        """The server restarted."""
        self._blocks.clear()
