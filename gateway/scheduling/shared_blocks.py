"""What the requests in flight on one server share of its KV cache.

vLLM keeps a prompt prefix once for all that run with it, apart for each adapter: requests with a
prefix in common need less room together than each of them alone.
"""

from typing import Final

_STRIDE: Final = 8
"""Every so many blocks one is looked at: its hash covers all before it, so that what is found is
shared; less than a stride of it is overlooked."""


class SharedBlocks:
    """Counts requests in flight by the blocks of their prompts.

    Attributes:
        saved_tokens: KV tokens that would be there once more if nothing were shared, by the
            smallest blocks of those in flight.
    """

    __slots__ = ("_block_tokens", "_duplicates", "_users", "saved_tokens")

    def __init__(self) -> None:
        """Start empty."""
        self._users: dict[tuple[str | None, int], int] = {}
        self._block_tokens = 0.0
        self._duplicates = 0
        self.saved_tokens = 0

    def take(self, adapter: str | None, blocks: tuple[int, ...], block_tokens: float) -> None:
        """Count a prompt of these blocks, of so many tokens each."""
        users = self._users
        if not users or block_tokens < self._block_tokens:
            self._block_tokens = block_tokens
        for block in blocks[_STRIDE - 1 :: _STRIDE]:
            key = (adapter, block)
            before = users.get(key, 0)
            users[key] = before + 1
            if before:
                self._duplicates += 1
        self.saved_tokens = int(self._duplicates * _STRIDE * self._block_tokens)

    def give_back(self, adapter: str | None, blocks: tuple[int, ...]) -> None:
        """Count a prompt that was taken no longer."""
        users = self._users
        for block in blocks[_STRIDE - 1 :: _STRIDE]:
            key = (adapter, block)
            left = users[key] - 1
            if left:
                users[key] = left
                self._duplicates -= 1
            else:
                del users[key]
        self.saved_tokens = int(self._duplicates * _STRIDE * self._block_tokens)

    def users_of(self, adapter: str | None, blocks: tuple[int, ...], held: int) -> int:
        """How many prompts in flight begin with the first half of the first `held` blocks."""
        place = max(1, held // 2 // _STRIDE) * _STRIDE - 1
        return self._users.get((adapter, blocks[place]), 0) if place < held else 0

    def in_common(self, adapter: str | None, blocks: tuple[int, ...], block_tokens: float) -> int:
        """Tokens of a prompt that are in use there already."""
        shared = 0
        for block in blocks[_STRIDE - 1 :: _STRIDE]:
            if (adapter, block) not in self._users:
                break
            shared += _STRIDE
        return int(shared * min(block_tokens, self._block_tokens))
