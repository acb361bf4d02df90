"""What the HTTP shell can be told; assembly maps settings onto these."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from gateway.scheduling.model import ServiceName
from gateway.wire.http_headers import ForwardingPolicy

_PRINTABLE = re.compile(r"[!-~]+")


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
        if not _PRINTABLE.fullmatch(url.strip()):
            raise ValueError(f"server URL {url!r} may have no spaces and control characters")
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
        slow_reader_s: how long a client may take no bytes of a response that is waiting for it;
            it occupies its server meanwhile.
        idle_s: how long a kept-alive connection may wait for its next request. vLLM (uvicorn)
            closes at 5 s; longer than that gives sporadic resets.
        sweep_s: how often the bounds are checked; they are coarse by this much.
    """

    connect_s: float = 3.0
    first_byte_s: float = 600.0
    stall_s: float = 120.0
    slow_reader_s: float = 300.0
    idle_s: float = 3.0
    sweep_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConnectOptions:
    """How connections to one server are made.

    Attributes:
        tls: needed for https endpoints only.
        authorization: value of Authorization in the gateway's own requests, its polls; of
            clients' requests it is the pool's forwarding policy that decides.
    """

    endpoint: BackendEndpoint
    timeouts: BackendTimeouts = field(default_factory=BackendTimeouts)
    tls: ssl.SSLContext | None = None
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How requests are put to the servers of one pool.

    Attributes:
        forwarding: what happens to the client's headers, credentials among them.
        servers_use_priority: the servers run with `--scheduling-policy priority`: send them the
            service's priority (vLLM's sign is the opposite of ours); otherwise send none.
        trusts_priority: let the client's own `priority` through untouched.
        inject_usage: services whose streams are asked for their usage although the client did
            not; the extra chunk is taken out again.
        continue_streams: services whose broken streams are continued on another server.
        deadlines: seconds from arrival to the last byte that requests of a service may take.
        fallbacks: service of another pool that answers for one whose models no server has.
    """

    forwarding: ForwardingPolicy = field(default_factory=ForwardingPolicy)
    servers_use_priority: bool = False
    trusts_priority: bool = False
    inject_usage: frozenset[ServiceName] = frozenset()
    continue_streams: frozenset[ServiceName] = frozenset()
    deadlines: Mapping[ServiceName, float] = field(default_factory=dict)
    fallbacks: Mapping[ServiceName, ServiceName] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndOptions:
    """What the clients' listener allows.

    Attributes:
        max_body_bytes: larger request bodies are refused with 413, before they are read where
            their length is announced.
        body_timeout_s: bound on the time a client takes to send its body.
        idle_s: how long a client's connection may wait for its next request.
        debug_headers: tell the server, the time queued and the forecast in response headers.
        cors_origins: origins that browsers may call from; `*` allows all; empty turns CORS off.
    """

    max_body_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 60.0
    idle_s: float = 75.0
    debug_headers: bool = False
    cors_origins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one listener takes of its clients' connections.

    Attributes:
        connections: open at once.
        connections_per_client: of one address; None for no bound.
        header_timeout_s: from the first byte of a request to the end of its headers.
        header_bytes: size of first line and headers.
        header_count: number of headers.
        unread_s: how long a client may take nothing of what is on its way to it, also when the
            gateway has no more to say (Linux only).
    """

    connections: int = 16_384
    connections_per_client: int | None = None
    header_timeout_s: float = 10.0
    header_bytes: int = 32_768
    header_count: int = 128
    unread_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """How servers are watched; times in seconds, each jittered by up to a tenth.

    Attributes:
        metrics_interval_s, health_interval_s, models_interval_s: between two looks at /metrics,
            /health and /v1/models of one server.
        timeout_s: bound on each look.
        failures_to_leave: failed looks at /health in a row after which a server is taken out; a
            refused connection counts as all of them, and silence for as long as all may take.
    """

    metrics_interval_s: float = 0.1
    health_interval_s: float = 1.0
    models_interval_s: float = 5.0
    timeout_s: float = 2.0
    failures_to_leave: int = 3
