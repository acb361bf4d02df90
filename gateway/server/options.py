"""What the HTTP shell can be told; assembly maps settings onto these."""

import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class BackendEndpoint:
    """Where a model server listens: `http://host:port/prefix`, taken apart.

    `authority` is the value of the Host header; `prefix` goes before every path.
    """

    host: str
    port: int
    authority: str
    tls: bool = False
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart; ValueError says what is wrong with it."""
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"server URL {url!r} must start with http:// or https://")
        if not parts.hostname:
            raise ValueError(f"server URL {url!r} names no host")
        if parts.query or parts.fragment or parts.username or not parts.netloc.isascii():
            raise ValueError(f"server URL {url!r} may have a host, a port and a path only")
        tls = parts.scheme == "https"
        port = parts.port if parts.port is not None else (443 if tls else 80)
        return cls(parts.hostname, port, parts.netloc, tls, parts.path.rstrip("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTimeouts:
    """Bounds on the steps of one attempt, in seconds.

    Attributes:
        connect_s: opening the connection, name lookup and TLS included.
        first_byte_s: from the request sent to the first byte of the response; an answer that is
            not streamed shows its first byte when it is finished.
        stall_s: between two reads of one response.
        idle_s: how long a kept-alive connection may wait for its next request. vLLM (uvicorn)
            closes at 5 s; longer than that gives sporadic resets.
        sweep_s: how often the bounds are checked; they are coarse by this much.
    """

    connect_s: float = 3.0
    first_byte_s: float = 600.0
    stall_s: float = 120.0
    idle_s: float = 3.0
    sweep_s: float = 0.5


class AuthorizationMode(StrEnum):
    """What happens to the client's Authorization header on the way to a server."""

    FORWARD = "forward"
    REPLACE = "replace"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAuthorization:
    """How servers of a pool are authorized to; `credentials` is the whole header value."""

    mode: AuthorizationMode = AuthorizationMode.FORWARD
    credentials: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConnectOptions:
    """How connections to one server are made; `tls` is needed for https endpoints only."""

    endpoint: BackendEndpoint
    timeouts: BackendTimeouts = field(default_factory=BackendTimeouts)
    tls: ssl.SSLContext | None = None
