"""The credentials that a request shows: an API key, or a user's password."""

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Final

from gateway.scheduling.model import ServiceName
from gateway.wire.http_headers import Headers

_KEY_HEADERS: Final = (b"x-api-key", b"api-key")
"""Where clients of Anthropic and of Azure put their key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """One configured key.

    Attributes:
        name: what logs and metrics call it.
        digests: SHA-256 of the key; several while it is being changed for a new one.
        services: those it may be used for; None for all, and for models without a service.
        requests_per_minute, tokens_per_minute: None for no limit. Tokens are those of prompts and
            answers together.
    """

    name: str
    digests: tuple[bytes, ...]
    services: frozenset[ServiceName] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def api_key_of(headers: Headers) -> bytes | None:
    """The API key that a request shows, or None.

    `Authorization: Bearer` counts first, then `x-api-key` and `api-key`. A request with several
    values for one of them shows none: which one another reader would take is not known.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name == b"authorization" or name in _KEY_HEADERS:
            found.setdefault(name, []).append(value)
    if any(len(values) > 1 for values in found.values()):
        return None
    if b"authorization" in found:
        return _after_scheme(found[b"authorization"][0], b"bearer")
    for name in _KEY_HEADERS:
        if name in found:
            return found[name][0].strip() or None
    return None


def password_of(headers: Headers) -> bytes | None:
    """The password of `Authorization: Basic` (RFC 7617), whoever the user; or None."""
    values = [value for name, value in headers if name == b"authorization"]
    encoded = _after_scheme(values[0], b"basic") if len(values) == 1 else None
    if encoded is None:
        return None
    try:
        _, colon, password = b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon else None


def _after_scheme(value: bytes, scheme: bytes) -> bytes | None:
    given, _, rest = value.strip().partition(b" ")
    return rest.strip() or None if given.lower() == scheme else None
