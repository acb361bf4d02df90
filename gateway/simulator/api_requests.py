"""Bodies of the simulated API's generation endpoints, checked the way vLLM checks them."""

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import orjson

from gateway.simulator.api_errors import (
    ApiError,
    invalid_body,
    invalid_value,
    missing_field,
    unknown_model,
)
from gateway.simulator.context_limits import ContextLimits
from gateway.simulator.synthetic_language import VOCABULARY_SIZE, ChatMessage, SyntheticLanguage

_DEFAULT_COMPLETION_TOKENS = 16
_MAX_CHOICES = 16_384
_CONTINUED_AND_PROMPTED = (
    "continue_final_message and add_generation_prompt are not compatible. Use "
    "continue_final_message when you want the model to continue the final message, and "
    "add_generation_prompt when you want to add a header that will prompt it to start a new "
    "assistant message instead."
)

Body = dict[str, Any]


class AnswerKind(Enum):
    """Which endpoint's answer a request gets."""

    CHAT = auto()
    COMPLETION = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A checked request for text.

    Attributes:
        adapter: None for the base model.
        prompts: token ids of each prompt; completions may have several.
        choices: answers per prompt.
        max_tokens: tokens of each answer, per prompt.
        may_end: per prompt, whether the answer may end by itself: unless `ignore_eos`, where the
            limit is nothing but the room left in the context.
        include_usage, continuous_usage: usage in a last chunk, and in each chunk.
        return_token_ids: whether ids accompany the text.
    """

    kind: AnswerKind
    model: str
    adapter: str | None
    prompts: tuple[list[int], ...]
    choices: int
    max_tokens: tuple[int, ...]
    may_end: tuple[bool, ...]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    priority: int
    cache_salt: str
    request_id: str | None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))


def parse_json(raw: bytes) -> Body:
    """Decode a JSON object.

    Raises:
        ApiError: not JSON, or not an object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _not_json(raw) from None
    if not isinstance(body, dict):
        raise invalid_body("Input should be a valid dictionary", "body")
    return body


def _not_json(raw: bytes) -> ApiError:
    position, reason = 0, "Invalid JSON"
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        position, reason = error.pos, error.msg
    except UnicodeDecodeError as error:
        position = error.start
    problem = (
        f"{{'type': 'json_invalid', 'loc': 'body.{position}', 'msg': 'JSON decode error', "
        f"'input': '<dict of 0 items>', 'ctx': {{'error': '{reason}'}}}}"
    )
    return invalid_body(problem, f"body.{position}")


class RequestReader:
    """Turns bodies into checked requests for one server."""

    def __init__(
        self, language: SyntheticLanguage, base_model: str, adapters: dict[str, str], max_len: int
    ) -> None:
        """Serve `base_model` and the (live) `adapters`; contexts are at most `max_len` tokens."""
        self._language = language
        self._base_model = base_model
        self._adapters = adapters
        self._limits = ContextLimits(max_len)

    def adapter(self, body: Body) -> str | None:
        """Resolve `model` to an adapter; None is the base model.

        Raises:
            ApiError: 404, no such model.
        """
        name = body.get("model", self._base_model)
        if name == self._base_model:
            return None
        if isinstance(name, str) and name in self._adapters:
            return name
        raise unknown_model(name, self._base_model)

    def chat(self, body: Body) -> GenerationRequest:
        """Check a chat request.

        Raises:
            ApiError: 400 or 404.
        """
        if "messages" not in body:
            raise missing_field("messages", len(body))
        prompt = self.chat_tokens(body)
        limit = body.get("max_completion_tokens")
        if limit is None:
            limit = body.get("max_tokens")
        return self._generation(AnswerKind.CHAT, body, (prompt,), limit)

    def completion(self, body: Body) -> GenerationRequest:
        """Check a completion request.

        Raises:
            ApiError: 400 or 404.
        """
        prompts = tuple(map(self._prompt_tokens, _prompts(body)))
        limit = body.get("max_tokens", _DEFAULT_COMPLETION_TOKENS)
        return self._generation(AnswerKind.COMPLETION, body, prompts, limit)

    def chat_tokens(self, body: Body) -> list[int]:
        """Render `messages` to token ids.

        Raises:
            ApiError: 400.
        """
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise invalid_body("Input should be a valid list", "body.messages")
        continued = bool(body.get("continue_final_message", False))
        prompted = bool(body.get("add_generation_prompt", True))
        if continued and prompted:
            raise ApiError(400, "BadRequestError", _CONTINUED_AND_PROMPTED)
        conversation = [_message(m) for m in messages]
        self._limits.check_characters(sum(len(m.content) for m in conversation))
        return self._language.render_chat(
            conversation,
            prompt_answer=prompted,
            leave_open=continued,
        )

    def embedding(self, body: Body) -> list[list[int]]:
        """Token ids of each input of an embedding request.

        Raises:
            ApiError: 400.
        """
        if "input" not in body:
            raise missing_field("input", len(body))
        prompts = [self._prompt_tokens(p) for p in _prompts({"prompt": body["input"]})]
        for prompt in prompts:
            self._limits.room(prompt)
        return prompts

    def _prompt_tokens(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            self._limits.check_characters(len(prompt))
            return self._language.encode(prompt)
        for token in prompt:
            if not 0 <= token < VOCABULARY_SIZE:
                raise ApiError(400, "BadRequestError", f"Token id {token} is out of vocabulary")
        return prompt

    def _generation(
        self, kind: AnswerKind, body: Body, prompts: tuple[list[int], ...], limit: object
    ) -> GenerationRequest:
        adapter = self.adapter(body)
        wanted = None if limit is None else self._limits.check_answer(limit)
        rooms = [self._limits.room(prompt) for prompt in prompts]
        if wanted is not None:
            for prompt, room in zip(prompts, rooms, strict=True):
                self._limits.check_fit(len(prompt), room, wanted)
        ends = not body.get("ignore_eos", False)
        temperature = body.get("temperature")
        if isinstance(temperature, int | float) and temperature < 0:
            message = f"temperature must be non-negative, got {float(temperature)}."
            raise invalid_value(message, "temperature", float(temperature))
        usage = body.get("stream_options") or {}
        if not isinstance(usage, dict):
            raise invalid_body("Input should be a valid dictionary", "body.stream_options")
        stream = bool(body.get("stream", False))
        include_usage = stream and bool(usage.get("include_usage", False))
        return GenerationRequest(
            kind=kind,
            model=adapter or self._base_model,
            adapter=adapter,
            prompts=prompts,
            choices=_integer(body, "n", 1, most=_MAX_CHOICES),
            max_tokens=tuple(wanted or room for room in rooms),
            may_end=tuple(ends and (wanted is None or wanted >= room) for room in rooms),
            stream=stream,
            include_usage=include_usage,
            continuous_usage=include_usage and bool(usage.get("continuous_usage_stats", False)),
            return_token_ids=bool(body.get("return_token_ids", False)),
            priority=_integer(body, "priority", 0),
            cache_salt=str(body.get("cache_salt") or ""),
            request_id=body.get("request_id"),
        )


def _integer(body: Body, name: str, default: int, most: int | None = None) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        kind = "string" if isinstance(value, str) else type(value).__name__
        problem = (
            f"{{'type': 'int_parsing', 'loc': 'body.{name}', 'msg': 'Input should be a valid "
            f"integer, unable to parse {kind} as an integer', 'input': {value!r}}}"
        )
        raise invalid_body(problem, f"body.{name}")
    if most is not None and not 1 <= value <= most:
        raise invalid_value(f"{name} must be between 1 and {most}, got {value}.", name, value)
    return value


def _message(message: object) -> ChatMessage:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise invalid_body("Each message needs a role", "body.messages")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        content = "".join(map(str, parts))
    return ChatMessage(message["role"], "" if content is None else str(content))


def _prompts(body: Body) -> list[str | list[int]]:
    """Return the prompts of a body: one or several, each text or token ids."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(type(item) is int for item in prompt):
            return [prompt]
        if all(_is_prompt(item) for item in prompt):
            return prompt
        raise invalid_body("Input should be a valid prompt", "body.prompt")
    message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
    raise ApiError(400, "BadRequestError", message, "prompt")


def _is_prompt(item: object) -> bool:
    return isinstance(item, str) or (
        isinstance(item, list) and all(type(token) is int for token in item)
    )
