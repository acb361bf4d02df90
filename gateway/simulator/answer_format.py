"""The bytes of answers, in the shape of vLLM 0.32: key order, no spaces, one event per chunk.

A plain token's event is three joined byte strings; JSON is encoded only where text can need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from gateway.simulator.api_requests import AnswerKind, GenerationRequest
from gateway.simulator.synthetic_language import SyntheticLanguage

FINGERPRINT = "vllm-0.32.0-916c5b3d"
DONE = b"data: [DONE]\n\n"


def http_chunk(data: bytes) -> bytes:
    """Frame data as one chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class Choice:
    """A finished answer to one prompt."""

    tokens: Sequence[int]
    finish_reason: str


class StreamFormat:
    """Events of one streamed answer."""

    def __init__(
        self,
        language: SyntheticLanguage,
        request: GenerationRequest,
        answer_id: str,
        created: int,
    ) -> None:
        """Prepare the parts that all events share."""
        self._language = language
        self._request = request
        self._chat = request.kind is AnswerKind.CHAT
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._head = _members(id=answer_id, object=kind, created=created, model=request.model)
        self._plain = not (request.return_token_ids or request.continuous_usage)
        self._fingerprint = b',"system_fingerprint":' + orjson.dumps(FINGERPRINT)
        self._plain_tail = (
            b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
            if self._chat
            else b'","logprobs":null,"finish_reason":null,"stop_reason":null,'
            b'"prompt_token_ids":null,"token_ids":null}]}\n\n'
        )

    def role(self, index: int) -> bytes:
        """First event of a chat choice: it has a role and no text."""
        request = self._request
        choice = (
            b'"choices":[{"index":%d,"delta":{"role":"assistant","content":""},'
            b'"logprobs":null,"finish_reason":null}]' % index
        )
        usage = self._usage_so_far(0) if request.continuous_usage else b""
        ids = self._prompt_ids(index)
        return self._event(choice + usage + b',"prompt_token_ids":' + ids + b',"prompt_text":null')

    def prefix(self, index: int) -> bytes:
        """Everything before the text in a choice's events."""
        text = b'"delta":{"content":"' if self._chat else b'"text":"'
        return b"data: {" + self._head + b',"choices":[{"index":%d,' % index + text

    def token(self, prefix: bytes, token: int, index: int, position: int) -> bytes:
        """Event of a token that is not the last; `position` counts the choice's tokens from 1."""
        piece = self._language.piece(token).encode()
        if self._plain and (self._chat or position > 1):
            return prefix + piece + self._plain_tail
        return self._full(prefix, (token,), None, index, position)

    def last(
        self, prefix: bytes, tokens: Sequence[int], reason: str, index: int, position: int
    ) -> bytes:
        """Event that ends a choice."""
        return self._full(prefix, tokens, reason, index, position)

    def tokens(self, prefix: bytes, tokens: Sequence[int], index: int, position: int) -> bytes:
        """One event of several tokens (speculative decoding); `position` is that of the last."""
        return self._full(prefix, tokens, None, index, position)

    def usage(self, completion_tokens: int) -> bytes:
        """Event with the usage, after all choices ended."""
        usage = _usage(self._request.prompt_tokens, completion_tokens)
        return self._event(b'"choices":[],"usage":{' + usage + b"}" + self._fingerprint)

    def _full(
        self, prefix: bytes, tokens: Sequence[int], reason: str | None, index: int, position: int
    ) -> bytes:
        request = self._request
        text = self._language.decode(tokens).encode()
        ids = orjson.dumps(list(tokens)) if request.return_token_ids else b"null"
        finish = orjson.dumps(reason)
        if self._chat:
            stop = b',"stop_reason":null' if reason else b""
            rest = b'"},"logprobs":null,"finish_reason":' + finish + stop
        else:
            first = position == len(tokens)
            prompt = self._prompt_ids(index) if first else b"null"
            rest = b'","logprobs":null,"finish_reason":' + finish
            rest += b',"stop_reason":null,"prompt_token_ids":' + prompt
        rest += b',"token_ids":' + ids + b"}]"
        if request.continuous_usage:
            rest += self._usage_so_far(position)
        if reason and not request.include_usage:
            rest += self._fingerprint
        return prefix + text + rest + b"}\n\n"

    def _usage_so_far(self, completion_tokens: int) -> bytes:
        usage = _usage(self._request.prompt_tokens, completion_tokens)
        return b',"usage":{' + usage + b',"completion_tokens_details":null}'

    def _prompt_ids(self, index: int) -> bytes:
        request = self._request
        if not request.return_token_ids:
            return b"null"
        return orjson.dumps(request.prompts[index // request.choices])

    def _event(self, members: bytes) -> bytes:
        return b"data: {" + self._head + b"," + members + b"}\n\n"


def whole_answer(
    language: SyntheticLanguage,
    request: GenerationRequest,
    choices: Sequence[Choice],
    answer_id: str,
    created: int,
) -> bytes:
    """Return the body of an answer that is not streamed."""
    chat = request.kind is AnswerKind.CHAT
    completion_tokens = sum(len(choice.tokens) for choice in choices)
    answer: dict[str, object] = {
        "id": answer_id,
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": request.model,
        "choices": [
            (_chat_choice if chat else _completion_choice)(language, request, index, choice)
            for index, choice in enumerate(choices)
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": {
            "prompt_tokens": request.prompt_tokens,
            "total_tokens": request.prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }
    if chat:
        ids = request.prompts[0] if request.return_token_ids else None
        answer |= {"prompt_logprobs": None, "prompt_token_ids": ids, "prompt_text": None}
    answer |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
    return orjson.dumps(answer)


def _chat_choice(
    language: SyntheticLanguage, request: GenerationRequest, index: int, choice: Choice
) -> dict[str, object]:
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": language.decode(choice.tokens),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        },
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": None,
        "token_ids": list(choice.tokens) if request.return_token_ids else None,
        "routed_experts": None,
    }


def _completion_choice(
    language: SyntheticLanguage, request: GenerationRequest, index: int, choice: Choice
) -> dict[str, object]:
    ids = request.return_token_ids
    return {
        "index": index,
        "text": language.decode(choice.tokens),
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": None,
        "token_ids": list(choice.tokens) if ids else None,
        "prompt_logprobs": None,
        "prompt_token_ids": request.prompts[index // request.choices] if ids else None,
        "routed_experts": None,
    }


def _usage(prompt_tokens: int, completion_tokens: int) -> bytes:
    return _members(
        prompt_tokens=prompt_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        completion_tokens=completion_tokens,
    )


def _members(**values: object) -> bytes:
    """Encode an object's members without its braces."""
    return orjson.dumps(values)[1:-1]
