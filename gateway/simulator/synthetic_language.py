"""A made-up language: its tokens, its tokenizer, its chat template, and what a model says in it.

Generated text consists of four-letter words, each with a leading space and each one token, so that
text and token ids translate back and forth exactly. Other text is cut into pieces whose ids are
hashes: they cannot be turned back into text, but count about as many tokens as a real tokenizer.

What comes next depends on the model and on all token ids so far, and on nothing else. So an answer
that is continued from its token ids (or its text) is the uninterrupted answer's remainder.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import pack
from typing import NamedTuple
from zlib import crc32

END_OF_TEXT = 0
_MESSAGE_START = 1
_MESSAGE_END = 2
_FIRST_WORD = 3
_WORDS = 4096
_FIRST_HASHED = _FIRST_WORD + _WORDS
VOCABULARY_SIZE = 131_072
MEAN_ANSWER_TOKENS = 211
"""An answer ends at each token with the probability of one in so many."""

_SYLLABLES = tuple(c + v for c in "bdfghjklmnprstvz" for v in "aeio")
_PIECE = re.compile(r" ?[A-Za-z]{1,6}| ?[0-9]{1,3}|\s|[^\sA-Za-z0-9]{1,2}")


class ChatMessage(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


class Speaker:
    """Yields one answer, token by token."""

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        """Continue from a state that `SyntheticLanguage.speaker` made."""
        self._state = state

    def next_token(self, *, may_end: bool) -> int:
        """Return the next token id; END_OF_TEXT only if the answer may end by itself."""
        mixed = self._state * 0x9E3779B1 & 0xFFFFFFFF
        if may_end and mixed % MEAN_ANSWER_TOKENS == 0:
            return END_OF_TEXT
        token = _FIRST_WORD + (mixed >> 20)
        self._state = crc32(token.to_bytes(4, "little"), self._state)
        return token


class SyntheticLanguage:
    """Tokenizer and model in one."""

    def __init__(self) -> None:
        """Build the vocabulary."""
        words = [" " + a + b for a in _SYLLABLES for b in _SYLLABLES]
        self._pieces = ("", "", "", *words)
        self._ids = {word: _FIRST_WORD + i for i, word in enumerate(words)}

    def piece(self, token: int) -> str:
        """Text of a token: empty for special ones, a replacement character for hashed ones."""
        return self._pieces[token] if token < _FIRST_HASHED else "\ufffd"

    def encode(self, text: str) -> list[int]:
        """Cut a text into token ids."""
        ids = self._ids
        return [
            ids.get(piece)
            or _FIRST_HASHED + crc32(piece.encode()) % (VOCABULARY_SIZE - _FIRST_HASHED)
            for piece in _PIECE.findall(text)
        ]

    def decode(self, tokens: Iterable[int]) -> str:
        """Join the texts of tokens."""
        return "".join(map(self.piece, tokens))

    def render_chat(
        self, messages: Sequence[ChatMessage], *, prompt_answer: bool, leave_open: bool
    ) -> list[int]:
        """Turn a conversation into token ids.

        Args:
            messages: the conversation.
            prompt_answer: begin the assistant's next message (`add_generation_prompt`).
            leave_open: do not end the last message (`continue_final_message`).
        """
        tokens: list[int] = []
        for message in messages:
            tokens += self._head(message.role)
            tokens += self.encode(message.content)
            tokens.append(_MESSAGE_END)
        if leave_open and tokens:
            tokens.pop()
        elif prompt_answer:
            tokens += self._head("assistant")
        return tokens

    def speaker(self, model: str, tokens: Sequence[int], choice: int = 0) -> Speaker:
        """Return what `model` says after `tokens`; further choices differ from the first."""
        state = crc32(f"{model}\0{choice or ''}".encode())
        return Speaker(crc32(pack(f"<{len(tokens)}I", *tokens), state))

    def _head(self, role: str) -> list[int]:
        return [_MESSAGE_START, *self.encode(role + "\n")]


def prefix_hashes(tokens: Sequence[int], block_tokens: int, salt: str) -> tuple[int, ...]:
    """Chained hashes of a prompt's whole blocks; another salt gives other hashes."""
    packed = pack(f"<{len(tokens)}I", *tokens)
    size = 4 * block_tokens
    digest = salt.encode()
    hashes = []
    for start in range(0, len(packed) - size + 1, size):
        digest = blake2b(digest + packed[start : start + size], digest_size=8).digest()
        hashes.append(int.from_bytes(digest))
    return tuple(hashes)
