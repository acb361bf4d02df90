"""Who comes in, and for how much: the API key, what it may use, and what is in flight at once."""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from gateway.runtime.clock import Clock
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import ServedModel
from gateway.server.api_keys import AccessControl, ApiKey, estimated_tokens
from gateway.server.client_request import ClientRequest
from gateway.server.request_body import Refused
from gateway.server.routes import PoolDirectory, Route
from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.wire.error_response import (
    ProtocolError,
    model_not_allowed_answer,
    protocol_answer,
    refusal_answer,
)
from gateway.wire.parsed_request import ParsedRequest

_IPV6_SITE_BITS: Final = 64
"""One subscriber has at least as many IPv6 addresses as this leaves (RFC 6177)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntranceLimits:
    """Bounds on what is in flight at once.

    Attributes:
        requests: of all clients together.
        requests_per_client: of one API key or, where none is required, of one address; None for
            no bound, as behind a load balancer, which has one address for everybody.
        body_bytes: memory for the bodies of all requests in flight.
    """

    requests: int = 16_384
    requests_per_client: int | None = None
    body_bytes: int = 2 << 30


class Entrance:
    """Lets requests in and keeps count of them. `limits` may be replaced at any time."""

    def __init__(
        self,
        *,
        access: AccessControl,
        pools: PoolDirectory,
        clock: Clock,
        limits: EntranceLimits | None = None,
    ) -> None:
        self._access = access
        self._pools = pools
        self.clock = clock
        self.limits = limits or EntranceLimits()
        self.requests = 0
        """Requests in flight."""
        self.body_bytes = 0
        """Bytes that their bodies take."""
        self._by_client: dict[str, int] = {}

    def enter(self, request: ClientRequest) -> "Visit":
        """Let a request in; it costs its key one request.

        Raises:
            Refused: no valid key (401), the key's limit (429), too many in flight (429, 503).
        """
        key = self._access.identify(request.headers)
        limits = self.limits
        if self.requests >= limits.requests:
            raise Refused(protocol_answer(ProtocolError.GATEWAY_IN_FLIGHT))
        client = None
        if limits.requests_per_client is not None:
            client = _address(request.connection.remote) if key is None else f"key {key.name}"
            if self._by_client.get(client, 0) >= limits.requests_per_client:
                detail = f"At most {limits.requests_per_client} are taken at once."
                answer = protocol_answer(ProtocolError.CLIENT_IN_FLIGHT, detail=detail)
                raise Refused(answer)
        if key is not None:
            key.take_request(now=self.clock())
        if client is not None:
            self._by_client[client] = self._by_client.get(client, 0) + 1
        self.requests += 1
        return Visit(self, client, key)

    def left(self, client: str | None, body_bytes: int) -> None:
        """Count a visit out that held so many bytes."""
        self.requests -= 1
        self.body_bytes -= body_bytes
        if client is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    def visible_models(self, request: ClientRequest) -> dict[str, ServedModel]:
        """The models that this request's key may use; raises Refused (401)."""
        key = self._access.identify(request.headers)
        models = self._pools.models()
        if key is None:
            return models
        return {name: model for name, model in models.items() if self._may_use(key, name)}

    def _may_use(self, key: ApiKey, model: str) -> bool:
        route = self._pools.route(model)
        return route is not None and key.may_use(route.asked_for)


class Visit:
    """One request that was let in; `leave` must be called at its end, whatever that is."""

    __slots__ = ("_body_bytes", "_client", "_entrance", "_estimate", "_key", "_taken")

    def __init__(self, entrance: Entrance, client: str | None, key: ApiKey | None) -> None:
        self._entrance = entrance
        self._client = client
        self._key = key
        self._body_bytes = 0
        self._estimate = 0
        self._taken: float | None = None

    @property
    def key_name(self) -> str | None:
        """Name of the API key, for logs; None where none is required."""
        return None if self._key is None else self._key.name

    def hold(self, size: int) -> None:
        """Account for so many more bytes of the body; raises Refused (503) if there is no room."""
        entrance = self._entrance
        if entrance.body_bytes + size > entrance.limits.body_bytes:
            raise Refused(protocol_answer(ProtocolError.BODY_MEMORY))
        entrance.body_bytes += size
        self._body_bytes += size

    def admit(self, parsed: ParsedRequest, route: Route | None) -> bytes:
        """Check what is asked for against the key; return header lines that tell its limits.

        Raises:
            Refused: nobody serves the model or the key may not use it (404), or it has not enough
                tokens left (429).
        """
        key = self._key
        if key is None:
            if route is None:
                answer = refusal_answer(RefusalReason.UNKNOWN_MODEL, model=parsed.model)
                raise Refused(answer)
            return b""
        if route is None or not key.may_use(route.asked_for):
            raise Refused(model_not_allowed_answer(parsed.model))
        now = self._entrance.clock()
        self._estimate = estimated_tokens(parsed.prompt_bytes, parsed.prompt_tokens)
        asked_for = self._estimate + (parsed.max_tokens or 0) * parsed.choices
        self._taken = key.take_tokens(asked_for, now=now)
        return b"".join([b"%b: %b\r\n" % header for header in key.limit_headers(now=now)])

    def leave(self, record: RequestRecord) -> None:
        """Count the request out, and its tokens as they turned out to be."""
        self._entrance.left(self._client, self._body_bytes)
        if self._key is not None and self._taken is not None:
            used = self._used_tokens(record, self._taken)
            self._key.settle_tokens(taken=self._taken, used=used, now=self._entrance.clock())

    def _used_tokens(self, record: RequestRecord, taken: float) -> float:
        """As the server counted; what was set aside where an answer told nothing of it."""
        prompt, answer = record.prompt_tokens, record.completion_tokens
        if prompt is None and answer is None:
            return taken if record.outcome is Outcome.OK else 0.0
        return (self._estimate if prompt is None else prompt) + (answer or 0)


def _address(remote: str | None) -> str:
    """The client's address; of IPv6 the network that one subscriber has."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((address, _IPV6_SITE_BITS), strict=False))
    return str(address)
