"""The clients' listener: dispatch by method and path, the small pages, and who is in flight."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import ServedModel
from gateway.server.client_channel import JSON_HEADER, ClientChannel
from gateway.server.client_request import ClientRequest, ClientSide
from gateway.server.cors import cors_headers, is_preflight, preflight_headers
from gateway.server.entrance import Entrance
from gateway.server.options import FrontEndOptions
from gateway.server.proxy_handler import ProxyHandler
from gateway.server.request_body import Refused
from gateway.server.routes import PoolDirectory
from gateway.wire.error_response import ProtocolError, protocol_answer, refusal_answer

_ORIGIN: Final = re.compile(r"\A[a-z]+://[^/?#]*", re.IGNORECASE)
_PAGES: Final = ("/health", "/ready", "/v1/models")
_MODEL_PAGE: Final = "/v1/models/"


class FrontEnd:
    """Handles every request of clients; the handler of the low-level server.

    Attributes:
        idle: set while no request is in flight.
    """

    def __init__(
        self,
        *,
        proxy: ProxyHandler,
        pools: PoolDirectory,
        options: FrontEndOptions,
        entrance: Entrance,
    ) -> None:
        self._proxy = proxy
        self._entrance = entrance
        self._pools = pools
        self._options = options
        self._draining = False
        self._in_flight: dict[ClientChannel, ClientSide] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    def reconfigure(self, options: FrontEndOptions) -> None:
        """Allow something else, to requests that come from now on."""
        self._options = options
        self._proxy.reconfigure(options)

    @property
    def in_flight(self) -> int:
        """Number of requests being handled."""
        return len(self._in_flight)

    async def handle(self, request: ClientRequest) -> bool:
        """Answer one request."""
        channel = ClientChannel(request)
        self._in_flight[channel] = request.connection
        self.idle.clear()
        if self._draining:
            channel.close_after()
        try:
            proxied = self._dispatch(request, channel)
            if proxied is not None:
                await proxied
            return channel.end()
        finally:
            del self._in_flight[channel]
            if not self._in_flight:
                self.idle.set()

    def drain(self) -> None:
        """Be not ready from now on, and close connections after their current request."""
        self._draining = True
        for channel in self._in_flight:
            channel.close_after()

    def cut(self) -> None:
        """Cancel the requests that are still in flight; streams end with an error event."""
        for connection in tuple(self._in_flight.values()):
            if connection.task is not None:
                connection.task.cancel()

    def _dispatch(
        self, request: ClientRequest, channel: ClientChannel
    ) -> Coroutine[Any, Any, None] | None:
        """Answer at once, or return what will; a coroutine that only waits for another costs."""
        target = request.target
        if not target.startswith("/"):
            target = _ORIGIN.sub("", target)
        path = target.partition("?")[0]
        origins = self._options.cors_origins
        if is_preflight(request, origins):
            channel.send(204, preflight_headers(request, origins), b"")
            return None
        headers = cors_headers(request, origins)
        if request.method == "POST" and path.startswith("/v1/"):
            return self._proxy.handle(request, channel, target, headers)
        if not request.body.complete:
            channel.close_after()
        is_page = path in _PAGES or path.startswith(_MODEL_PAGE)
        if is_page and request.method in ("GET", "HEAD"):
            self._page(request, channel, path, headers)
        elif is_page or path.startswith("/v1/"):
            allow = b"allow: GET, HEAD\r\n" if is_page else b"allow: POST\r\n"
            answer = protocol_answer(ProtocolError.METHOD_NOT_ALLOWED)
            channel.send_answer(answer, headers + allow)
        else:
            detail = "Base URLs of the API end in /v1."
            channel.send_answer(protocol_answer(ProtocolError.NOT_FOUND, detail=detail), headers)
        return None

    def _page(
        self, request: ClientRequest, channel: ClientChannel, path: str, headers: bytes
    ) -> None:
        match path:
            case "/health":
                channel.send(200, headers + JSON_HEADER, b'{"status":"ok"}')
            case "/ready":
                self._ready(channel, headers)
            case _:
                self._models(request, channel, path, headers)

    def _ready(self, channel: ClientChannel, headers: bytes) -> None:
        if self._draining:
            answer = refusal_answer(RefusalReason.DRAINING)
        elif not self._pools.any_usable:
            answer = refusal_answer(RefusalReason.NO_BACKEND)
        else:
            channel.send(200, headers + JSON_HEADER, b'{"status":"ready"}')
            return
        channel.send_answer(answer, headers)

    def _models(
        self, request: ClientRequest, channel: ClientChannel, path: str, headers: bytes
    ) -> None:
        try:
            models = self._entrance.visible_models(request)
        except Refused as refusal:
            channel.send_answer(refusal.answer, headers)
            return
        if path == "/v1/models":
            described = [_described(model) for model in models.values()]
            body = msgspec.json.encode({"object": "list", "data": described})
            channel.send(200, headers + JSON_HEADER, body)
            return
        name = unquote(path.removeprefix(_MODEL_PAGE))
        model = models.get(name)
        if model is None:
            answer = refusal_answer(RefusalReason.UNKNOWN_MODEL, model=name)
            channel.send_answer(answer, headers)
        else:
            channel.send(200, headers + JSON_HEADER, msgspec.json.encode(_described(model)))


def _described(model: ServedModel) -> dict[str, object]:
    """One entry of the list of models, as OpenAI and vLLM write it."""
    described: dict[str, object] = {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "llm-instance-gateway",
        "root": model.name,
        "parent": model.parent,
    }
    if model.max_model_len is not None:
        described["max_model_len"] = model.max_model_len
    return described
