"""The `model` field of a multipart body (audio uploads); the body itself goes on unchanged."""

import re
from typing import Final

from gateway.wire.openai_request import BadRequest, check_model
from gateway.wire.parsed_request import ParsedRequest, RequestKind

_PARAMETER: Final = r"""\s*;\s*([\w*-]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;\s"]*))"""
_TYPE_PARAMETER: Final = re.compile(_PARAMETER)
_PART_PARAMETER: Final = re.compile(_PARAMETER.encode())
_DISPOSITION: Final = re.compile(
    rb"\r\ncontent-disposition:\s*form-data\b([^\r\n]*)", re.IGNORECASE
)
_MAX_BOUNDARY: Final = 70
"""RFC 2046, 5.1.1."""
_TRUE: Final = (b"true", b"1")
_MAX_PARTS: Final = 256
_MAX_PART_HEAD: Final = 4_096
_MAX_FIELD: Final = 4_096
"""Longer values are files, or no model's name."""


def parse_multipart_model(content_type: str, body: bytes) -> ParsedRequest:
    """Find the model, and whether a stream is wanted, in a multipart/form-data body.

    Args:
        content_type: the request's Content-Type; it names the boundary.
        body: the whole body.

    Raises:
        BadRequest: no boundary, too many parts, no model, or a model that may not be used.
    """
    spans = _short_fields(b"\r\n--" + _boundary(content_type), body)
    start, stop = model_span = spans.get("model", (0, 0))
    try:
        model = body[start:stop].decode() if "model" in spans else None
    except UnicodeDecodeError:
        raise BadRequest("The field `model` is not UTF-8.", param="model") from None
    start, stop = spans.get("stream", (0, 0))
    return ParsedRequest(
        kind=RequestKind.OTHER,
        body=body,
        model=check_model(model),
        streamed=body[start:stop].strip().lower() in _TRUE,
        model_span=model_span,
    )


def _boundary(content_type: str) -> bytes:
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() == "multipart/form-data":
        for name, quoted, bare in _TYPE_PARAMETER.findall(content_type[len(media_type) :]):
            value = quoted or bare
            if name.lower() == "boundary" and value.isascii() and 1 <= len(value) <= _MAX_BOUNDARY:
                return bytes(value, "ascii")
    raise BadRequest("The Content-Type of a multipart body must name a boundary (RFC 2046).")


def _short_fields(delimiter: bytes, body: bytes) -> dict[str, tuple[int, int]]:
    """Name -> where the value stands, of short parts that are no files; of equal names the last."""
    fields: dict[str, tuple[int, int]] = {}
    at = -2 if body.startswith(delimiter[2:]) else _find(delimiter, body, 0)
    for _ in range(_MAX_PARTS):
        start = at + len(delimiter)
        stop = _find(delimiter, body, start)
        if at == -1 or stop == -1:
            return fields
        head_end = body.find(b"\r\n\r\n", start, min(stop, start + _MAX_PART_HEAD))
        disposition = _DISPOSITION.search(body, start, max(start, head_end))
        if disposition is not None and stop - head_end <= _MAX_FIELD:
            parameters = {
                name.lower(): quoted or bare
                for name, quoted, bare in _PART_PARAMETER.findall(disposition[1])
            }
            if b"name" in parameters and b"filename" not in parameters:
                fields[parameters[b"name"].decode("latin-1")] = head_end + 4, stop
        at = stop
    raise BadRequest(f"The multipart body has more than {_MAX_PARTS} parts.")


def _find(delimiter: bytes, body: bytes, start: int) -> int:
    """Where the next delimiter line begins, or -1; a longer line that begins so is none."""
    at = body.find(delimiter, start)
    while at >= 0:
        end = at + len(delimiter)
        if body[end : end + 2] in {b"\r\n", b"--"}:
            break
        at = body.find(delimiter, end)
    return at
