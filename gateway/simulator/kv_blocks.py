"""KV cache of a simulated engine: counts of blocks, and the prefix cache kept in the free ones.

A prompt's blocks are taken whole at admission (vLLM reserves the full input before it admits), one
more each time a decoding sequence crosses a block boundary. Blocks of hashed prompt prefixes stay
cached after their last user left, until their space is needed: least recently used goes first
(vLLM: v1/core/block_pool.py). Blocks of generated text are not cached.
"""

from collections import OrderedDict

from gateway.simulator.engine_model import BLOCK_TOKENS, Sequence


class CachedBlock:
    """A hashed prefix block: how many sequences use it, and the KV blocks it spans."""

    __slots__ = ("blocks", "users")

    def __init__(self, blocks: int, users: int) -> None:
        """Make an entry that spans `blocks` KV blocks."""
        self.blocks = blocks
        self.users = users


class KvBlocks:
    """Counts of used and cached blocks; never more than `total` together.

    Attributes:
        used: blocks that belong to sequences; a shared block counts once.
    """

    def __init__(self, total: int, *, caching: bool) -> None:
        """Make an empty cache of `total` blocks."""
        self.total = total
        self.used = 0
        self._caching = caching
        self._entries: dict[tuple[str | None, int], CachedBlock] = {}
        self._idle: OrderedDict[tuple[str | None, int], CachedBlock] = OrderedDict()
        self._idle_blocks = 0

    @property
    def cached(self) -> int:
        """Blocks that hold reusable prefixes without a user."""
        return self._idle_blocks

    def take(self, blocks: int) -> bool:
        """Take free blocks, dropping cached prefixes if needed. False, and nothing, if too few."""
        used = self.used + blocks
        if used > self.total:
            return False
        self.used = used
        while self.used + self._idle_blocks > self.total:
            key, entry = self._idle.popitem(last=False)
            self._idle_blocks -= entry.blocks
            del self._entries[key]
        return True

    def admit(self, sequence: Sequence) -> bool:
        """Take the blocks of a sequence's prompt, reusing cached ones. False if they do not fit.

        Sets `computed` to the tokens that need no prefill; at least one is always computed.
        """
        keys, shared_blocks, idle_blocks = self._match(sequence)
        own = -(-sequence.target // BLOCK_TOKENS) - shared_blocks
        if self.used + own + idle_blocks > self.total:
            return False
        for key in keys:
            entry = self._entries[key]
            if not entry.users:
                del self._idle[key]
            entry.users += 1
        self._idle_blocks -= idle_blocks
        self.used += idle_blocks
        self.take(own)
        sequence.shared = keys
        sequence.shared_blocks = shared_blocks
        sequence.published = len(keys)
        last_block = (sequence.target - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        sequence.computed = min(shared_blocks * BLOCK_TOKENS, last_block)
        return True

    def publish(self, sequence: Sequence) -> None:
        """Offer a sequence's newly computed prefix blocks to others."""
        request = sequence.tracked.request
        if not self._caching or not request.prefix_blocks:
            return
        tokens = request.prefix_block_tokens
        full = min(
            len(request.prefix_blocks), min(sequence.computed, request.prompt_tokens) // tokens
        )
        blocks = tokens // BLOCK_TOKENS
        for block_hash in request.prefix_blocks[sequence.published : full]:
            key = (request.adapter, block_hash)
            if key not in self._entries:
                self._entries[key] = CachedBlock(blocks, 1)
                sequence.shared.append(key)
                sequence.shared_blocks += blocks
        sequence.published = max(full, sequence.published)

    def release(self, sequence: Sequence, tokens: int) -> None:
        """Give back the blocks of a sequence that holds `tokens` tokens."""
        self.used -= -(-tokens // BLOCK_TOKENS) - sequence.shared_blocks
        # Last block first, so that the head of a prefix outlives its tail.
        for key in reversed(sequence.shared):
            entry = self._entries[key]
            entry.users -= 1
            if not entry.users:
                self._idle[key] = entry
                self._idle_blocks += entry.blocks
                self.used -= entry.blocks
        sequence.shared = []
        sequence.shared_blocks = 0

    def forget_prefixes(self) -> None:
        """Drop every cached prefix that nobody uses."""
        for key in self._idle:
            del self._entries[key]
        self._idle.clear()
        self._idle_blocks = 0

    def copy(self) -> "KvBlocks":
        """Return an independent copy."""
        twin = KvBlocks(self.total, caching=self._caching)
        twin.used = self.used
        twin._idle_blocks = self._idle_blocks
        twin._entries = {k: CachedBlock(e.blocks, e.users) for k, e in self._entries.items()}
        twin._idle = OrderedDict((k, twin._entries[k]) for k in self._idle)
        return twin

    def _match(self, sequence: Sequence) -> tuple[list[tuple[str | None, int]], int, int]:
        """Find the longest cached prefix: its keys, its KV blocks, those of them without a user."""
        request = sequence.tracked.request
        keys: list[tuple[str | None, int]] = []
        idle_blocks = 0
        if not self._caching or not request.prefix_blocks:
            return keys, 0, 0
        blocks = request.prefix_block_tokens // BLOCK_TOKENS
        whole = request.prompt_tokens // request.prefix_block_tokens
        for block_hash in request.prefix_blocks[:whole]:
            key = (request.adapter, block_hash)
            entry = self._entries.get(key)
            if entry is None:
                break
            keys.append(key)
            if not entry.users:
                idle_blocks += blocks
        return keys, len(keys) * blocks, idle_blocks
