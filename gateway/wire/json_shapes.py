"""The members of JSON documents that the gateway reads; msgspec decodes into them.

They have a file of their own because msgspec makes the classes itself, which mypyc cannot compile.
"""

from typing import Any, Final

from msgspec import UNSET, Raw, Struct, UnsetType


class StreamOptions(Struct):
    """What else a request says of its stream."""

    include_usage: bool | None = None


NOTHING: Final = Raw(b"")


class RequestFields(Struct):
    """The top-level fields that the gateway reads, over all endpoints."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | UnsetType | None = UNSET
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    messages: Raw = NOTHING
    prompt: Raw = NOTHING
    input: Raw = NOTHING
    tools: Raw = NOTHING
    system: Raw = NOTHING
    instructions: Raw = NOTHING
    cache_salt: Raw = NOTHING
    priority: Raw = NOTHING


class MarkedChoice(Struct, gc=False):
    """What may be a mark in a choice."""

    finish_reason: Any = None
    delta: Any = None


class MarkedEvent(Struct, gc=False):
    """What may be a mark in an event of Chat, Completions, Responses or Messages."""

    choices: list[MarkedChoice] | None = None
    usage: Any = None
    error: Any = None
    type: Any = None
    code: Any = None
    message: Any = None
    response: Any = None


class StreamChoice(Struct):
    """A choice of an event, of either API."""

    delta: Any = None
    text: Any = None
    finish_reason: Any = None
    stop_reason: Any = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None


class StreamEvent(Struct):
    """What matters in an event of /v1/chat/completions or /v1/completions."""

    id: Any = None
    created: Any = None
    choices: list[StreamChoice] | None = None
    usage: Any = None
    error: Any = None
    prompt_token_ids: list[int] | None = None
    system_fingerprint: Any = None


class Detokenized(Struct):
    """What vLLM's /detokenize answers."""

    prompt: str


class StreamChunk(Struct):
    """What tells the usage chunk of a stream from the others."""

    choices: Any = None
    usage: Any = None


class Answer(Struct):
    """An answer in one piece."""

    usage: Any = None
