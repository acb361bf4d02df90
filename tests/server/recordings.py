"""Answers of a real vLLM, as they went over the wire."""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parents[1] / "recordings" / "vllm-0.32"


class Recording(NamedTuple):
    """One recorded exchange; `body` is the response's body without transfer coding."""

    path: str
    request_body: bytes
    response: bytes
    status: int
    body: bytes


def read_recording(name: str) -> Recording:
    request = (FOLDER / f"{name}.req").read_bytes()
    response = (FOLDER / f"{name}.resp").read_bytes()
    head, _, body = response.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        body = _without_chunks(body)
    return Recording(
        path=request.split(b" ", 2)[1].decode(),
        request_body=request.partition(b"\r\n\r\n")[2],
        response=response,
        status=int(head.split(b" ", 2)[1]),
        body=body,
    )


def _without_chunks(data: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(pieces)
        pieces.append(rest[:length])
        data = rest[length + 2 :]
