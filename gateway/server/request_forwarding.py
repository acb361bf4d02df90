"""What is sent to a server for one client request: target, headers, body."""

import re
from typing import Final

from gateway.scheduling.model import LLMService
from gateway.server.client_request import ClientRequest
from gateway.server.options import PoolOptions
from gateway.server.request_body import ReceivedBody
from gateway.telemetry.trace_context import TRACEPARENT, TraceContext
from gateway.wire.answer_so_far import AnswerSoFar
from gateway.wire.continuation_obstacles import Members, continuation_obstacle
from gateway.wire.http_headers import request_headers_to_forward
from gateway.wire.openai_request import members_of, parse_json_request, rewrite_body
from gateway.wire.parsed_request import ParsedRequest, RequestKind
from gateway.wire.stream_continuation import RESUME_PATH, ObservedStream, ResumedStream

_TARGET: Final = re.compile(r"/v1(?:/[A-Za-z0-9_.-]+)+\Z")
_USUAL_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
_NEVER_PROXIED: Final = frozenset({"load_lora_adapter", "unload_lora_adapter"})
"""They change one server behind the scheduler's back, for everybody."""
_NOT_FOR_SERVERS: Final = frozenset({b"accept-encoding", b"origin"})
"""The gateway must be able to read the answer: servers may not compress it. And whether browsers
may call is not for the server to say, so it need not know who they are."""
_NOT_WITH_ANOTHER_BODY: Final = _NOT_FOR_SERVERS | {b"content-encoding"}


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
        request: ClientRequest,
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
        self._resumes = False
        self._followed = self._members_to_follow()
        self.answer: AnswerSoFar | None = None
        """What the client has of its streamed answer, from the first attempt on; None where nobody
        could go on with it."""

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

    @property
    def resumes(self) -> bool:
        """Whether this asks for the rest of an answer that another server began."""
        return self._resumes

    def resumed(self, body: bytes) -> "ForwardedRequest":
        """The request that asks for the rest of the answer; it goes to RESUME_PATH."""
        other = ForwardedRequest(
            request=self._request,
            request_id=self._request_id,
            parsed=parse_json_request(RESUME_PATH, body),
            body=ReceivedBody(body, body),
            service=self._service,
            options=self._options,
        )
        other._resumes = True
        other.answer = self.answer
        return other

    @property
    def parsed(self) -> ParsedRequest:
        """What is asked for."""
        return self._parsed

    def stream_change(self) -> ObservedStream | ResumedStream | None:
        """What the stream of the next attempt must pass through, so that it can be continued."""
        if self._resumes:
            assert self.answer is not None
            return ResumedStream(self.answer)
        if self._followed is None:
            return None
        # Of what an earlier attempt brought the client has seen nothing.
        chat = self._parsed.kind is RequestKind.CHAT
        self.answer = AnswerSoFar(chat=chat, body=self._followed)
        return ObservedStream(self.answer)

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
            return_token_ids=self._followed is not None and not self._resumes,
        )
        passed_on = changed is self._parsed.body
        body = self._body.received if passed_on else changed
        own_body = passed_on and not self._resumes
        headers = request_headers_to_forward(
            self._request.headers,
            host=authority,
            request_id=self._request_id,
            policy=options.forwarding,
            without=_NOT_FOR_SERVERS if own_body else _NOT_WITH_ANOTHER_BODY,
        )
        if self.trace is not None:
            headers = [header for header in headers if header[0] != TRACEPARENT]
            headers.append(self.trace.header)
        lines = [b": ".join(header) for header in headers]
        lines.append(b"content-length: %d\r\n" % len(body))
        return b"\r\n".join(lines), body

    def _members_to_follow(self) -> Members | None:
        """The members of a request whose answer another server could go on with."""
        parsed = self._parsed
        if (
            self._service.name not in self._options.continue_streams
            or not parsed.streamed
            or parsed.kind is RequestKind.OTHER
        ):
            return None
        members = members_of(parsed)
        return members if continuation_obstacle(members) is None else None

    @property
    def _takes_priority(self) -> bool:
        """Whether the endpoint knows `priority`; others might refuse an unknown field."""
        return self._parsed.kind is not RequestKind.OTHER
