"""What is fuzzed: everything that reads bytes from others. A target raises if a promise is broken.

Each takes one input; errors that callers expect are no findings.
"""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import msgspec

from gateway.server.backend_connection import ReadFlow
from gateway.server.client_request import ClientRequest
from gateway.server.options import ConnectionLimits
from gateway.server.request_parser import MalformedRequest, RequestParser
from gateway.settings.loading import load_file
from gateway.settings.problems import ConfigurationError
from gateway.wire.answer_scanner import JsonAnswerScanner
from gateway.wire.credentials import api_key_of, password_of
from gateway.wire.engine_metrics import scan_metrics
from gateway.wire.http_headers import (
    CredentialPolicy,
    ForwardingPolicy,
    choose_request_id,
    parse_deadline,
    parse_fairness_id,
    parse_slo_headers,
    request_headers_to_forward,
    response_headers_to_client,
)
from gateway.wire.model_list import scan_models
from gateway.wire.multipart_request import parse_multipart_model
from gateway.wire.openai_request import BadRequest, parse_json_request, rewrite_body
from gateway.wire.sse_scanner import SseScanner
from gateway.wire.stream_rewrite import ModelNameRewriter, UsageChunkFilter

_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NEVER_FORWARDED = frozenset({b"transfer-encoding", b"content-length", b"authorization"})
_BREAKS = (b"\r", b"\n", b"\0")


def request(data: bytes) -> None:
    """A JSON body is refused, or its model can be replaced and nothing else changes."""
    path, body = _PATHS[data[0] % len(_PATHS)] if data else _PATHS[0], data[1:]
    try:
        parsed = parse_json_request(path, body)
    except BadRequest:
        return
    assert parsed.choices >= 1
    assert parsed.prompt_bytes >= 0
    assert rewrite_body(parsed) is body
    try:
        changed = rewrite_body(parsed, model="other model", priority=3, include_usage=True)
    except BadRequest:
        return  # the name of a member is no text
    again = parse_json_request(path, changed)
    assert again.model == "other model"
    assert again.streamed == parsed.streamed
    before, after = _MEMBERS.decode(body), _MEMBERS.decode(changed)
    for name, value in before.items():
        if name not in ("model", "priority", "stream_options"):
            assert bytes(after[name]) == bytes(value)


def multipart(data: bytes) -> None:
    """A form is refused, or the model can be replaced."""
    content_type = "multipart/form-data; boundary=b"
    if data[:1] == b"\x01":
        head, _, data = data[1:].partition(b"\n")
        content_type = head.decode("latin-1")
    try:
        parsed = parse_multipart_model(content_type, data)
        changed = rewrite_body(parsed, model="other")
        assert parse_multipart_model(content_type, changed).model == "other"
    except BadRequest:
        return


def stream(data: bytes) -> None:
    """Marks do not depend on how a stream is cut into reads; rewriting keeps what it must."""
    step, body = (data[0] % 17) + 1 if data else 1, data[1:]
    whole, pieces, answer = SseScanner(), SseScanner(), JsonAnswerScanner()
    changes = (UsageChunkFilter(), ModelNameRewriter("sent", "shown", streamed=True))
    again = (UsageChunkFilter(), ModelNameRewriter("sent", "shown", streamed=True))
    whole.feed(body)
    answer.feed(body)
    in_one = [change.feed(body) + change.flush() for change in changes]
    in_many = [b"", b""]
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        pieces.feed(piece)
        for number, change in enumerate(again):
            in_many[number] += change.feed(piece)
    for number, change in enumerate(again):
        in_many[number] += change.flush()
    assert in_one == in_many
    for mark in ("events", "first_token", "finished", "usage", "error"):
        assert getattr(whole, mark) == getattr(pieces, mark), mark
    assert answer.usage is not None


def metrics(data: bytes) -> None:
    """A page of metrics, or a list of models, is read or is not; numbers are none that mislead."""
    load = scan_metrics(data)
    for count in (load.running, load.waiting, load.waiting_deferred):
        assert count is None or count >= 0
    assert load.kv_usage is None or 0.0 <= load.kv_usage <= 1.0
    scan_models(data)


def headers(data: bytes) -> None:
    """Headers are refused, or what goes on can be read in one way only."""
    pairs = []
    for line in data.split(b"\x01"):
        name, _, value = line.partition(b"\x02")
        pairs.append((name.lower(), value))
    request_id = choose_request_id(pairs, generated="generated")
    assert request_id.isascii()
    assert request_id.isprintable()
    for read in (parse_slo_headers, parse_deadline, parse_fairness_id):
        with suppress(BadRequest):
            read(pairs)
    for secret in (api_key_of(pairs), password_of(pairs)):
        assert secret is None or isinstance(secret, bytes)
    sent = response_headers_to_client(
        pairs, request_id=request_id, event_stream=True, keeps_length=False
    )
    policy = ForwardingPolicy(credentials=CredentialPolicy.DROP)
    with suppress(BadRequest):
        forwarded = request_headers_to_forward(
            pairs, host="server", request_id=request_id, policy=policy
        )
        assert _NEVER_FORWARDED.isdisjoint(name for name, _ in forwarded)
        sent += forwarded
    for name, value in sent:
        assert not any(byte in name + value for byte in _BREAKS)


class _Side:
    """A connection whose client reads everything."""

    transport: asyncio.Transport | None = None
    remote = "192.0.2.1"
    writing_paused = False

    def feed_from(self, flow: ReadFlow | None) -> None:
        """Nobody feeds it."""

    def body_taken(self) -> None:
        """It was never stopped."""


def connection(data: bytes) -> None:
    """A client's bytes are the same requests however they are cut, up to the same fault."""
    step, received = (data[0] % 17) + 1 if data else 1, data[1:]
    assert _requests_in(received, len(received) or 1) == _requests_in(received, step)


def _requests_in(data: bytes, step: int) -> tuple[list[tuple[object, ...]], bool]:
    requests: list[ClientRequest] = []
    parser = RequestParser(_Side(), requests.append, ConnectionLimits())
    faulty = False
    try:
        for start in range(0, len(data), step):
            parser.feed(memoryview(data[start : start + step]))
    except MalformedRequest:
        faulty = True
    found: list[tuple[object, ...]] = [
        (each.method, each.target, each.headers, each.keep_alive, each.body.take())
        for each in requests
        if each.body.complete
    ]
    return found, faulty


def config(data: bytes) -> None:
    """A file is valid, or the problem is told."""
    with tempfile.NamedTemporaryFile(dir=_folder(), suffix=".yaml") as file:
        file.write(data)
        file.flush()
        with suppress(ConfigurationError):
            load_file(Path(file.name))


def _folder() -> str | None:
    """Memory, where there is such a folder: a million files wear a disk out."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TARGETS: MappingProxyType[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "request": request,
        "multipart": multipart,
        "stream": stream,
        "metrics": metrics,
        "headers": headers,
        "connection": connection,
        "config": config,
    }
)
