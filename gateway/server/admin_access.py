"""Who may use the administration listener.

Besides the key there are browsers to think of: a page of any site that an administrator visits can
send requests to an address inside, the loopback address too. So a request that a page of another
origin made is refused; and on the loopback address, while no key protects it, one for a host name
with a domain (DNS rebinding).
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.server.client_channel import ClientChannel
from gateway.server.client_request import ClientRequest
from gateway.wire.credentials import api_key_of, password_of
from gateway.wire.error_response import ErrorAnswer, ProtocolError, protocol_answer

_OPEN = frozenset({"/health"})
"""Pages that probes of liveness ask for without a key."""
_CHALLENGE = (b"www-authenticate", b'Basic realm="administration", Bearer')
"""So that a browser asks; the key is the password, of any user."""


class AdminAccess:
    """Stands in front of the administration pages."""

    def __init__(
        self,
        pages: Callable[[ClientRequest], Awaitable[bool]],
        *,
        host: str,
    ) -> None:
        """Protect `pages`, which listen on `host`; without a key they are open."""
        self._pages = pages
        self._is_local = is_loopback(host)
        self._digest: bytes | None = None

    def set_key(self, key: str | None) -> None:
        """Ask for this key from now on; None for none."""
        self._digest = None if key is None else sha256(key.encode()).digest()

    async def handle(self, request: ClientRequest) -> bool:
        """Pass a request on that may come in, answer any other; the listener's handler."""
        refusal = self._refusal(request)
        if refusal is None:
            return await self._pages(request)
        channel = ClientChannel(request)
        if not request.body.complete:
            channel.close_after()
        channel.send_answer(refusal)
        return channel.end()

    def _refusal(self, request: ClientRequest) -> ErrorAnswer | None:
        host = request.header(b"host") or ""
        if _is_foreign(request, host):
            detail = "Pages of other sites may not use the administration listener."
            return protocol_answer(ProtocolError.FORBIDDEN, detail=detail)
        if request.path in _OPEN:
            return None
        if self._digest is None:
            if not self._is_local or _is_local_name(host):
                return None
            detail = "Without admin_api_key, ask for localhost or its address."
            return protocol_answer(ProtocolError.FORBIDDEN, detail=detail)
        shown = api_key_of(request.headers) or password_of(request.headers)
        if shown is not None and compare_digest(sha256(shown).digest(), self._digest):
            return None
        answer = protocol_answer(ProtocolError.UNAUTHORIZED, detail="It is admin_api_key.")
        others = tuple(header for header in answer.headers if header[0] != _CHALLENGE[0])
        return answer._replace(headers=(*others, _CHALLENGE))


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_foreign(request: ClientRequest, host: str) -> bool:
    """Whether a browser sent this for a page of another origin."""
    if (request.header(b"sec-fetch-site") or "none") not in ("none", "same-origin"):
        # Following a link is harmless, and the only way in from another site.
        return request.header(b"sec-fetch-mode") != "navigate" or request.method != "GET"
    origin = request.header(b"origin")
    return origin is not None and origin.partition("//")[2].lower() != host.lower()


def _is_local_name(authority: str) -> bool:
    """Whether a Host is an address or has no domain: no name that a stranger could point here."""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
        return "." not in name or bool(ip_address(name))
    except ValueError:
        return False
