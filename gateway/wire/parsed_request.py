"""What the gateway knows of a client's request from its body."""

from enum import StrEnum

from msgspec import Struct


class RequestKind(StrEnum):
    """The formats whose streams the gateway knows in depth, and all others."""

    CHAT = "chat"
    COMPLETION = "completion"
    OTHER = "other"


class ParsedRequest(Struct, frozen=True, kw_only=True, gc=False):
    """What the gateway knows of one request's body.

    Attributes:
        kind: format of the request, by its path.
        body: as received.
        model: the model name that the client sent.
        streamed: whether the client asked for a stream.
        includes_usage: whether the client itself asked for the usage chunk of a stream.
        has_priority: whether the body carries a `priority`.
        generates: False for embeddings and the like: one prefill, no output tokens.
        max_tokens: bound on output tokens, or None.
        choices: number of sequences the engine runs: `n` (or `best_of`) times the prompts.
        prompt_bytes: bytes of text in the prompt, system text and tools included; a file inside
            the body (base64) counts as a fixed small size.
        prompt_tokens: exact length, over all prompts, if token ids were sent; else None.
        prefix_blocks: chained hashes of the prompt's leading blocks, longest prefix last.
        model_span: where the model's name stands in a body that is no JSON (multipart).
    """

    kind: RequestKind
    body: bytes
    model: str
    streamed: bool = False
    includes_usage: bool = False
    has_priority: bool = False
    generates: bool = True
    max_tokens: int | None = None
    choices: int = 1
    prompt_bytes: int = 0
    prompt_tokens: int | None = None
    prefix_blocks: tuple[int, ...] = ()
    model_span: tuple[int, int] | None = None
