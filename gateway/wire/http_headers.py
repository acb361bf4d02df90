"""Headers between client, gateway and server: what passes, what is dropped, what is read.

Headers are pairs of bytes, names in lower case, as the parsers of both sides make them. Framing
(Content-Length, Transfer-Encoding) never passes: whoever writes the message makes it anew, so that
two readings of one message cannot differ.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.wire.openai_request import BadRequest

Headers = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    },
)
"""RFC 9110, 7.6.1, and those that older software sends from hop to hop."""
_NOT_FORWARDED: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
_NOT_RETURNED: Final = _HOP_BY_HOP | {b"x-request-id"}
_HARMLESS_CONNECTION: Final = frozenset({b"keep-alive", b"close"})
"""Options of Connection that name no header."""
_STEERING: Final = (
    *(b"x-gateway-", b"x-slo-", b"x-llm-d-"),
    *(b"x-data-parallel-", b"x-prefiller-", b"x-encoder-hosts-", b"x-session-token"),
)
"""Prefixes of the headers that speak to a gateway, or tell servers (vLLM, llm-d) whom to ask; each
begins with x-."""
_CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key", b"api-key"})
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_REQUEST_ID: Final = b"x-request-id"
_DEADLINE: Final = b"x-gateway-deadline-ms"
_FAIRNESS_ID: Final = b"x-gateway-inference-fairness-id"
_TOKEN_CHARACTERS: Final = (
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
"""What the name of a header is made of: RFC 9110, 5.6.2."""
_NUL: Final = 0
_LF: Final = 10
_CR: Final = 13
"""What would end a header's line; as ints, because `in` finds those in bytes at once."""
_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_NUMBER: Final = re.compile(rb"[0-9]{1,12}(\.[0-9]{1,12})?\Z")
_SLO_HEADERS: Final = {
    b"x-slo-ttft-ms": 0,
    b"x-llm-d-slo-ttft-ms": 0,
    b"x-slo-tpot-ms": 1,
    b"x-llm-d-slo-tpot-ms": 1,
}
"""Place of the bound in what `parse_slo_headers` returns."""
_MAX_SLO_MS: Final = 86_400_000.0


class CredentialPolicy(StrEnum):
    """What happens to a client's credentials (Authorization, X-Api-Key) on the way to a server."""

    FORWARD = "forward"
    REPLACE = "replace"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class ForwardingPolicy:
    """How request headers go to a server.

    Attributes:
        credentials: what happens to the client's credentials.
        authorization: value of Authorization for REPLACE; unused otherwise.
        forwards_steering: pass the headers that speak to the gateway on (a gateway behind this).
    """

    credentials: CredentialPolicy = CredentialPolicy.FORWARD
    authorization: str = ""
    forwards_steering: bool = False


def choose_request_id(headers: Headers, *, generated: str) -> str:
    """The client's X-Request-Id if it sent a single valid one, else the generated id.

    It names the request in logs and to the server; it need not be unique.
    """
    given = [value for name, value in headers if name == _REQUEST_ID]
    return given[0].decode() if len(given) == 1 and _ID.match(given[0]) else generated


def request_headers_to_forward(
    headers: list[tuple[bytes, bytes]],
    *,
    host: str,
    request_id: str,
    policy: ForwardingPolicy,
    without: frozenset[bytes] = frozenset(),
) -> list[tuple[bytes, bytes]]:
    """The headers to send to a server, without Content-Length, which the sender adds.

    Args:
        headers: as received from the client.
        host: authority of the server.
        request_id: made by `choose_request_id`.
        policy: what happens to credentials and steering headers.
        without: names of others that are left out, in lower case.

    Raises:
        BadRequest: ambiguous framing, or a header that would break out of its line.
    """
    _refuse_smuggling(headers)
    dropped = _with_named_by_connection(_NOT_FORWARDED, headers)
    if policy.credentials is not CredentialPolicy.FORWARD:
        dropped |= _CREDENTIALS
    forwarded = [(b"host", host.encode()), (_REQUEST_ID, request_id.encode())]
    if policy.credentials is CredentialPolicy.REPLACE:
        forwarded.append((b"authorization", policy.authorization.encode()))
    steering = () if policy.forwards_steering else _STEERING
    forwarded += [
        header
        for header in headers
        if (name := header[0]) not in dropped
        and name not in without
        and not (name.startswith(b"x-") and name.startswith(steering))
    ]
    return forwarded


def response_headers_to_client(
    headers: list[tuple[bytes, bytes]],
    *,
    request_id: str,
    event_stream: bool,
    keeps_length: bool,
) -> list[tuple[bytes, bytes]]:
    """The headers to send to the client.

    Args:
        headers: as received from the server.
        request_id: id of this request.
        event_stream: the body is a stream of events: buffering and caching are forbidden.
        keeps_length: the body passes unchanged and framed by Content-Length.
    """
    dropped = _with_named_by_connection(_NOT_RETURNED, headers)
    if not keeps_length:
        dropped |= {b"content-length"}
    if event_stream:
        dropped |= {b"cache-control", b"x-accel-buffering"}
    passed = [header for header in headers if header[0] not in dropped]
    if not _are_well_formed(passed):
        passed = [header for header in passed if _are_well_formed([header])]
    passed.append((_REQUEST_ID, request_id.encode()))
    if event_stream:
        passed += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return passed


def parse_slo_headers(headers: Headers) -> tuple[float | None, float | None]:
    """The client's own bounds on TTFT and TPOT, in seconds.

    Reads x-slo-ttft-ms and x-slo-tpot-ms, or the same with x-llm-d-slo-; of several the smallest.

    Raises:
        BadRequest: not a number of milliseconds above 0 and up to a day.
    """
    bounds = [math.inf, math.inf]
    for name, value in headers:
        if (place := _SLO_HEADERS.get(name)) is not None:
            bounds[place] = min(bounds[place], _milliseconds(name, value))
    ttft, tpot = (None if math.isinf(ms) else ms / 1_000 for ms in bounds)
    return ttft, tpot


def parse_deadline(headers: Headers) -> float | None:
    """The client's x-gateway-deadline-ms for the whole request, in seconds; of several the least.

    Raises:
        BadRequest: not a number of milliseconds above 0 and up to a day.
    """
    given = [_milliseconds(name, value) for name, value in headers if name == _DEADLINE]
    return min(given) / 1_000 if given else None


def parse_fairness_id(headers: Headers) -> str | None:
    """The client's x-gateway-inference-fairness-id, or None.

    Raises:
        BadRequest: longer than 128 characters, or with others than letters, digits and `._:-`.
    """
    found = None
    for name, value in headers:
        if name == _FAIRNESS_ID:
            if not _ID.match(value):
                raise BadRequest(
                    "x-gateway-inference-fairness-id must be 1 to 128 letters, digits or ._:- .",
                    param="x-gateway-inference-fairness-id",
                )
            found = value.decode()
    return found


def _milliseconds(name: bytes, value: bytes) -> float:
    milliseconds = float(value) if _NUMBER.match(value.strip()) else 0.0
    if not 0.0 < milliseconds <= _MAX_SLO_MS:
        header = name.decode("latin-1")
        raise BadRequest(
            f"The header {header} must be a number of milliseconds above 0 and up to one day.",
            param=header,
        )
    return milliseconds


def _with_named_by_connection(
    dropped: frozenset[bytes], headers: list[tuple[bytes, bytes]]
) -> frozenset[bytes]:
    """The names in `dropped` and those that Connection names."""
    for name, value in headers:
        if name == b"connection" and value.lower() not in _HARMLESS_CONNECTION:
            dropped |= {option.strip().lower() for option in value.split(b",")}
    return dropped


def _refuse_smuggling(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse what two servers might read differently (RFC 9112, 6.1 and 6.3; 5.1)."""
    framing = [header for header in headers if header[0] in _FRAMING]
    if len(framing) > 1 or any(
        not value.isdigit() if name == b"content-length" else value.strip().lower() != b"chunked"
        for name, value in framing
    ):
        raise BadRequest("Content-Length and Transfer-Encoding contradict each other.")
    if not _are_well_formed(headers):
        raise BadRequest("A header has characters that HTTP does not allow.")


def _are_well_formed(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether every name is a token and no value breaks out of its line."""
    names = [name for name, _ in headers]
    if b"" in names or b"".join(names).translate(None, _TOKEN_CHARACTERS):
        return False
    values = b"".join([value for _, value in headers])
    return not (_CR in values or _LF in values or _NUL in values)
