"""Cross-origin requests of browsers (Fetch standard, section 3.2); off unless origins are named."""

from typing import Final

from gateway.server.client_request import ClientRequest

_PREFLIGHT: Final = (
    b"access-control-allow-methods: GET, POST, OPTIONS\r\n"
    b"access-control-allow-headers: %b\r\n"
    b"access-control-max-age: 600\r\n"
)


def cors_headers(request: ClientRequest, origins: frozenset[str]) -> bytes:
    """Header lines that let the request's origin read the answer; none if it may not."""
    if not origins:
        return b""
    origin = request.header(b"origin")
    if origin is None or not (origin in origins or "*" in origins):
        return b"vary: Origin\r\n"
    return (
        b"vary: Origin\r\naccess-control-allow-origin: %b\r\n"
        b"access-control-expose-headers: *\r\n" % origin.encode("latin-1", "replace")
    )


def is_preflight(request: ClientRequest, origins: frozenset[str]) -> bool:
    """Whether this asks if a cross-origin request may be made."""
    return (
        bool(origins)
        and request.method == "OPTIONS"
        and request.header(b"access-control-request-method") is not None
    )


def preflight_headers(request: ClientRequest, origins: frozenset[str]) -> bytes:
    """Header lines of the answer to a preflight."""
    allowed = cors_headers(request, origins)
    if b"allow-origin" not in allowed:
        return allowed
    wanted = request.header(b"access-control-request-headers") or ""
    return allowed + _PREFLIGHT % wanted.encode("latin-1", "replace")
