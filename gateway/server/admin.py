"""The administration listener: metrics and a look inside. Loopback unless set otherwise."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote

from gateway.scheduling.model import RequestId
from gateway.server.client_channel import JSON_HEADER, ClientChannel
from gateway.server.client_request import ClientRequest
from gateway.server.routes import PoolDirectory
from gateway.telemetry.json_text import encode_json
from gateway.wire.error_response import ProtocolError, protocol_answer

_METRICS_HEADER = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_EXPLAIN = "/debug/requests/"
_LOG = logging.getLogger(__name__)


class AdminSection(Protocol):
    """Pages of one concern, such as the admin API."""

    async def answer(self, request: ClientRequest, channel: ClientChannel) -> bool:
        """Answer one request; False if it is not about this section."""
        ...


class AdminPages:
    """Handles every request of administrators; the handler of the low-level server.

    `render_metrics` makes the Prometheus page; `sections` are asked first, in order.
    """

    def __init__(
        self,
        *,
        pools: PoolDirectory,
        render_metrics: Callable[[], bytes],
        sections: Sequence[AdminSection] = (),
    ) -> None:
        self._pools = pools
        self._sections = tuple(sections)
        self._render_metrics = render_metrics

    async def handle(self, request: ClientRequest) -> bool:
        """Answer one request."""
        channel = ClientChannel(request)
        for section in self._sections:
            if await section.answer(request, channel):
                return channel.end()
        path = request.path
        if request.method not in ("GET", "HEAD"):
            channel.close_after()
            answer = protocol_answer(ProtocolError.METHOD_NOT_ALLOWED)
            channel.send_answer(answer, b"allow: GET, HEAD\r\n")
        elif path == "/metrics":
            channel.send(200, _METRICS_HEADER, self._render_metrics())
        elif path == "/health":
            channel.send(200, JSON_HEADER, b'{"status":"ok"}')
        elif path == "/debug/state":
            pools = {pool.pool.name: pool.snapshot() for pool in self._pools.pools}
            channel.send(200, JSON_HEADER, encode_json({"pools": pools}))
        elif path.startswith(_EXPLAIN):
            self._explain(channel, unquote(path.removeprefix(_EXPLAIN)))
        else:
            channel.send_answer(protocol_answer(ProtocolError.NOT_FOUND))
        return channel.end()

    def _explain(self, channel: ClientChannel, request_id: str) -> None:
        for pool in self._pools.pools:
            explanation = pool.driver.explain(RequestId(request_id))
            if explanation is not None:
                channel.send(200, JSON_HEADER, encode_json(explanation))
                return
        detail = "Name a recent request by its lease_id, as the request log tells it."
        channel.send_answer(protocol_answer(ProtocolError.NOT_FOUND, detail=detail))
