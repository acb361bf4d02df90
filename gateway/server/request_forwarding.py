"""What is sent to a server for one client request: target, headers, body."""

import re

from aiohttp import web

from gateway.scheduling.model import LLMService
from gateway.server.options import PoolOptions
from gateway.server.request_body import ReceivedBody
from gateway.telemetry.trace_context import TRACEPARENT, TraceContext
from gateway.wire.http_headers import request_headers_to_forward
from gateway.wire.openai_request import ParsedRequest, RequestKind, rewrite_body

_TARGET = re.compile(r"/v1(?:/[A-Za-z0-9_.-]+)+\Z")
_USUAL_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
_NEVER_PROXIED = frozenset({"load_lora_adapter", "unload_lora_adapter"})
"""They change one server behind the scheduler's back, for everybody."""
_NOT_FOR_SERVERS = frozenset({b"accept-encoding", b"origin"})
"""The gateway must be able to read the answer: servers may not compress it. And whether browsers
may call is not for the server to say, so it need not know who they are."""
_NOT_WITH_ANOTHER_BODY = _NOT_FOR_SERVERS | {b"content-encoding"}


def is_proxied_path(path: str) -> bool:
    """Whether a path is one that servers may be asked for.

    Percent-encoding, empty segments and dots are refused, so that a server cannot read another
    path in it than the one that was checked here.
    """
    if path in _USUAL_PATHS:
        return True
    return _TARGET.match(path) is not None and not {".", ".."} & set(path.split("/"))


def is_administrative(path: str) -> bool:
    """Whether a path loads or unloads adapters."""
    return path not in _USUAL_PATHS and path.rsplit("/", 1)[-1].lower() in _NEVER_PROXIED


class ForwardedRequest:
    """One client request, ready to be put to any server of its pool.

    Attributes:
        trace: whose `traceparent` takes the place of the client's; None passes that on.
    """

    def __init__(
        self,
        *,
        request: web.BaseRequest,
        request_id: str,
        parsed: ParsedRequest,
        body: ReceivedBody,
        service: LLMService,
        options: PoolOptions,
    ) -> None:
        self._request = request
        self._request_id = request_id
        self._parsed = parsed
        self._body = body
        self._service = service
        self._options = options
        self.trace: TraceContext | None = None

    @property
    def hides_usage(self) -> bool:
        """Whether the server is asked for a usage chunk that the client did not ask for."""
        parsed = self._parsed
        return (
            parsed.streamed
            and parsed.kind is not RequestKind.OTHER
            and not parsed.includes_usage
            and self._service.name in self._options.inject_usage
        )

    def to_server(self, model: str, authority: str) -> tuple[bytes, bytes]:
        """Return header lines and body for the server at `authority`, asked for `model`."""
        options = self._options
        sends_priority = options.servers_use_priority and not options.trusts_priority
        changed = rewrite_body(
            self._parsed,
            model=model,
            # vLLM serves smaller numbers sooner; our higher levels go first.
            priority=-self._service.priority if sends_priority and self._takes_priority else None,
            drop_priority=not options.trusts_priority,
            include_usage=self.hides_usage,
        )
        passed_on = changed is self._parsed.body
        body = self._body.received if passed_on else changed
        dropped = _NOT_FOR_SERVERS if passed_on else _NOT_WITH_ANOTHER_BODY
        headers = request_headers_to_forward(
            self._request.raw_headers,
            host=authority,
            request_id=self._request_id,
            policy=options.forwarding,
        )
        if self.trace is not None:
            headers = [header for header in headers if header[0] != TRACEPARENT]
            headers.append(self.trace.header)
        lines = [b"%b: %b" % header for header in headers if header[0] not in dropped]
        lines.append(b"content-length: %d\r\n" % len(body))
        return b"\r\n".join(lines), body

    @property
    def _takes_priority(self) -> bool:
        """Whether the endpoint knows `priority`; others might refuse an unknown field."""
        return self._parsed.kind is not RequestKind.OTHER
