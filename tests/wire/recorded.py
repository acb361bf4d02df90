"""Real bytes: what a vLLM 0.32 server received, answered and reported."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings" / "vllm-0.32"
STREAMS = (
    "burst_over_queue_limit_0",
    "chat_logprobs_stream",
    "chat_return_token_ids_stream",
    "chat_stream_usage",
    "chat_stream_usage_continuous",
    "comp_n2_stream",
    "comp_stream_usage",
    "kill9_engine_midstream",
    "opt_cached_tokens_stream",
)


def page(name: str) -> bytes:
    """A file as it is: a /metrics page."""
    return (RECORDINGS / name).read_bytes()


def request_of(name: str) -> tuple[str, bytes]:
    """Path and body of a recorded request."""
    head, _, body = page(f"{name}.req").partition(b"\r\n\r\n")
    return head.split()[1].decode(), body


def answer_to(name: str) -> bytes:
    """Body of the recorded answer, without its transfer encoding."""
    head, _, rest = page(f"{name}.resp").partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return rest
    body = b""
    size = -1
    while size:
        digits, _, rest = rest.partition(b"\r\n")
        size = int(digits, 16)
        body += rest[:size]
        rest = rest[size + 2 :]
    return body


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The JSON events of a stream, the slow way."""
    lines = body.decode().splitlines()
    payloads = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(payload) for payload in payloads if payload != "[DONE]"]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces: cut at each of the given places (any integers)."""
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(places)]
