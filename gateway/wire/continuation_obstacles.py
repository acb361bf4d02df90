"""Whether the stream of a request could be continued by a second request to another server."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

_NULL: Final = Raw(b"null")
_OBSTACLES: Final = (
    "tools",
    "functions",
    "logprobs",
    "prompt_logprobs",
    "echo",
    "suffix",
    "stop",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "use_beam_search",
    "audio",
    "prompt_embeds",
    "logits_processors",
    "vllm_xargs",
)
"""Fields whose meaning cannot be carried over, if they are set at all. With `stop` the engine holds
back text that might become a stop string, of tokens it has told already. Processors of logits and
plug-ins (the last two) may count from where the answer begins."""
_UNSET: Final = frozenset({b"null", b"false", b"[]", b'""'})
_POSSIBLE: Final = {
    "n": frozenset({b"1", b"null"}),
    "best_of": frozenset({b"1", b"null"}),
    "return_token_ids": _UNSET | {b"true"},
}

Members = Mapping[str, Raw]


def continuation_obstacle(body: Members) -> str | None:
    """Why a stream of this request could not be continued; None if it could.

    Args:
        body: the members of the request's body, as sent by the client.
    """
    for field in _OBSTACLES:
        if field in body and bytes(body[field]).strip() not in _UNSET:
            return field
    for field, values in _POSSIBLE.items():
        if bytes(body.get(field, _NULL)).strip() not in values:
            return field
    response_format = msgspec.json.decode(body.get("response_format", _NULL))
    if isinstance(response_format, dict) and response_format.get("type") != "text":
        return "response_format"
    options = msgspec.json.decode(body.get("stream_options", _NULL))
    if isinstance(options, dict) and options.get("continuous_usage_stats"):
        return "continuous_usage_stats"
    if isinstance(msgspec.json.decode(body.get("prompt", _NULL)), list):
        return None if _is_one_prompt(msgspec.json.decode(body["prompt"])) else "several prompts"
    return _multimodal(msgspec.json.decode(body.get("messages", _NULL)))


def wants_token_ids(body: Members) -> bool:
    """Whether the client wants the token ids of its answer."""
    return bytes(body.get("return_token_ids", _NULL)).strip() == b"true"


def _is_one_prompt(prompt: list[object]) -> bool:
    """Whether it is a list of token ids, or has a single prompt in it."""
    return len(prompt) == 1 or all(isinstance(each, int) for each in prompt)


def _multimodal(messages: object) -> str | None:
    if isinstance(messages, list):
        for message in messages:
            content = message.get("content") if isinstance(message, dict) else None
            if isinstance(content, list) and any(
                not isinstance(part, dict) or part.get("type") != "text" for part in content
            ):
                return "multimodal content"
    return None
