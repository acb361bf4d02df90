"""A client's request body: what scheduling needs of it, and the same body with values replaced.

A body is parsed once, and only its top level: prompts stay raw bytes, so that the cost is linear
and small. Duplicate keys count as vLLM counts them (the last one wins). What only the model server
can judge (temperature, tools, ...) is left to it.
"""

import re
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from gateway.wire.json_shapes import NOTHING, RequestFields
from gateway.wire.parsed_request import ParsedRequest, RequestKind
from gateway.wire.prompt_text import count_token_ids, hash_prefix, seed_of, text_bytes

_MAX_MODEL_LENGTH: Final = 512
_MAX_CHOICES: Final = 10_000
_MAX_TOKENS: Final = (1 << 31) - 1
_COMPLETION_DEFAULT_MAX_TOKENS: Final = 16
"""What vLLM (and OpenAI) take for /v1/completions without max_tokens."""
_NOT_GENERATING: Final = frozenset(
    {
        "classify",
        "count_tokens",
        "detokenize",
        "embed",
        "embeddings",
        "generative_scoring",
        "moderations",
        "pooling",
        "rerank",
        "score",
        "tokenize",
    },
)
"""Last path segments of the endpoints that cost one prefill, or less, and write no tokens."""
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAMED_FIELD: Final = re.compile(r"`\$\.(\w+)")


class BadRequest(Exception):  # noqa: N818 (the name says what it is, in the terms of HTTP)
    """The client's request cannot be served as it is; the message says what to change.

    Attributes:
        status: HTTP status of the answer.
        message: for the client.
        param: the body's field or the header at fault, or None.
        code: the `code` of the OpenAI-shaped error; the status, as vLLM does it.
    """

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = status


_SEEDS: Final = {kind: seed_of(kind.encode(), b"", b"", b"", b"") for kind in RequestKind}
"""Of requests that have nothing before their prompt, which most have not."""
_FIELDS: Final = msgspec.json.Decoder(RequestFields, strict=False)
"""As lenient as vLLM (pydantic): 16.0 and "16" are numbers, 1 and "true" are true."""
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])


def parse_json_request(path: str, body: bytes) -> ParsedRequest:
    """Read the top level of a JSON body sent to `path` (without query).

    Raises:
        BadRequest: the body is not a JSON object, or a field the gateway needs has a bad value.
    """
    fields = _decode(body)
    model = check_model(fields.model)
    kind = _kind_of(path)
    generates = path.rsplit("/", 1)[-1] not in _NOT_GENERATING
    prompt = bytes(_prompt_of(kind, fields))
    prompts, prompt_tokens = (
        count_token_ids(prompt) if kind is RequestKind.COMPLETION else (1, None)
    )
    salt, tools = _bytes_of(fields.cache_salt), _bytes_of(fields.tools)
    system, instructions = _bytes_of(fields.system), _bytes_of(fields.instructions)
    if salt or tools or system or instructions:
        seed = seed_of(kind.encode(), salt, tools, system, instructions)
    else:
        seed = _SEEDS[kind]
    prompt_bytes = text_bytes(prompt or body) if prompt_tokens is None else len(prompt)
    options = fields.stream_options
    return ParsedRequest(
        kind=kind,
        body=body,
        model=model,
        streamed=bool(fields.stream),
        includes_usage=options is not None and bool(options.include_usage),
        has_priority=fields.priority is not NOTHING,
        generates=generates,
        max_tokens=_max_tokens(kind, fields),
        choices=_choices(kind, fields, prompts),
        prompt_bytes=prompt_bytes + len(tools) + len(system) + len(instructions),
        prompt_tokens=prompt_tokens,
        prefix_blocks=hash_prefix(prompt, seed=seed) if generates else (),
    )


def check_model(model: str | None) -> str:
    """Return the client's model name if it can safely go into logs, headers and bodies.

    Raises:
        BadRequest: it is missing, empty, too long or has control characters.
    """
    if model is None:
        raise BadRequest("The field `model` is missing: name the model to use.", param="model")
    if not model.strip():
        raise BadRequest("The field `model` is empty: name the model to use.", param="model")
    if len(model) > _MAX_MODEL_LENGTH:
        raise BadRequest(
            f"The field `model` is longer than {_MAX_MODEL_LENGTH} characters.",
            param="model",
        )
    if not (model.isascii() and model.isprintable()) and _CONTROL_CHARACTER.search(model):
        raise BadRequest("The field `model` has control characters in it.", param="model")
    return model


def rewrite_body(
    request: ParsedRequest,
    *,
    model: str | None = None,
    priority: int | None = None,
    drop_priority: bool = False,
    include_usage: bool = False,
    return_token_ids: bool = False,
) -> bytes:
    """The body of `request` with some top-level values replaced or added.

    Every other value keeps its bytes. Without changes the received body itself is returned. Of a
    multipart body only the model can be changed; the rest is left out of account.

    Args:
        request: as parsed.
        model: model name to send.
        priority: value to send (vLLM's sign: smaller is sooner).
        drop_priority: leave the client's value out.
        include_usage: ask for the usage chunk; the other stream options are kept.
        return_token_ids: ask for the token ids of prompt and answer.

    Raises:
        BadRequest: a member's name is not UTF-8.
    """
    if request.model_span is not None:
        start, stop = request.model_span
        if model is None or model == request.model:
            return request.body
        return request.body[:start] + model.encode() + request.body[stop:]
    changes: dict[str, Raw] = {}
    if model is not None and model != request.model:
        changes["model"] = Raw(msgspec.json.encode(model))
    if priority is not None:
        changes["priority"] = Raw(b"%d" % priority)
    if return_token_ids:
        changes["return_token_ids"] = Raw(b"true")
    add_usage = include_usage and not request.includes_usage
    drop_priority = drop_priority and priority is None and request.has_priority
    if not (changes or add_usage or drop_priority):
        return request.body
    members = _members_of(request.body)
    if drop_priority:
        del members["priority"]
    if add_usage:
        options = bytes(members.get("stream_options", NOTHING))
        kept = _members_of(options) if options.startswith(b"{") else {}
        kept.pop("continuous_usage_stats", None)  # without include_usage it was without effect
        changes["stream_options"] = Raw(msgspec.json.encode(kept | {"include_usage": Raw(b"true")}))
    return msgspec.json.encode(members | changes)


def members_of(request: ParsedRequest) -> dict[str, Raw]:
    """The top-level members of a JSON body, each as its bytes."""
    return _members_of(request.body)


def _members_of(document: bytes) -> dict[str, Raw]:
    """The members of an object; their names have not been looked at before, if unknown to us."""
    try:
        return _MEMBERS.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None


def _decode(body: bytes) -> RequestFields:
    try:
        return _FIELDS.decode(body)
    except msgspec.ValidationError as error:
        named = _NAMED_FIELD.search(str(error))
        if named is None:
            raise BadRequest(f"The body must be a JSON object: {error}.") from None
        raise BadRequest(
            f"The field `{named[1]}` has a bad value: {error}.",
            param=named[1],
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None


def _bytes_of(raw: Raw) -> bytes:
    return b"" if raw is NOTHING else bytes(raw)


def _kind_of(path: str) -> RequestKind:
    if path.endswith("/chat/completions"):
        return RequestKind.CHAT
    if path.endswith("/completions"):
        return RequestKind.COMPLETION
    return RequestKind.OTHER


def _prompt_of(kind: RequestKind, fields: RequestFields) -> Raw:
    if kind is RequestKind.CHAT:
        return fields.messages
    if kind is RequestKind.COMPLETION:
        return fields.prompt
    given = (fields.input, fields.messages, fields.prompt)
    return next((raw for raw in given if bytes(raw)), NOTHING)


def _max_tokens(kind: RequestKind, fields: RequestFields) -> int | None:
    bound = fields.max_tokens
    if bound is UNSET:
        bound = _COMPLETION_DEFAULT_MAX_TOKENS if kind is RequestKind.COMPLETION else None
    of_completion = _checked_bound("max_completion_tokens", fields.max_completion_tokens)
    of_output = _checked_bound("max_output_tokens", fields.max_output_tokens)
    bound = _checked_bound("max_tokens", bound)
    if kind is RequestKind.COMPLETION:
        return bound
    if of_completion is not None:
        return of_completion
    return bound if of_output is None else of_output


def _checked_bound(name: str, value: int | None) -> int | None:
    if value is not None and not 0 <= value <= _MAX_TOKENS:
        raise BadRequest(f"The field `{name}` must be 0 to {_MAX_TOKENS}.", param=name)
    return value


def _choices(kind: RequestKind, fields: RequestFields, prompts: int) -> int:
    choices = 1
    for name, value in (("n", fields.n), ("best_of", fields.best_of)):
        if value is not None:
            if not 1 <= value <= _MAX_CHOICES:
                raise BadRequest(f"The field `{name}` must be 1 to {_MAX_CHOICES}.", param=name)
            if name == "n" or kind is RequestKind.COMPLETION:
                choices = max(choices, value)
    if choices * prompts > _MAX_CHOICES:
        raise BadRequest(
            f"One request may ask for {_MAX_CHOICES} answers at most (prompts times `n`).",
            param="prompt",
        )
    return choices * prompts
