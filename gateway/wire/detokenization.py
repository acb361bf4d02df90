"""Asking a server for the text of token ids: vLLM's /detokenize."""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.wire.json_shapes import Detokenized

DETOKENIZE_PATH: Final = "/detokenize"
_DETOKENIZED: Final = msgspec.json.Decoder(Detokenized)


def detokenize_request(model: str, ids: Sequence[int]) -> bytes:
    """Return the body of the request."""
    return msgspec.json.encode({"model": model, "tokens": ids})


def detokenized(body: bytes) -> str | None:
    """Return the text that a server answered; None if there is none."""
    try:
        return _DETOKENIZED.decode(body).prompt
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
