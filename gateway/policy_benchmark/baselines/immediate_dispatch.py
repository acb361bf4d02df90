"""The frame of baselines without a queue: each request is dispatched or refused on arrival."""

from collections.abc import Sequence
from typing import Protocol

from gateway.policy_benchmark.baselines.server_view import ServerView, estimated_tokens
from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    DispatchFailed,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, Forecast, InferenceRequest, RequestId

NO_FORECAST = Forecast(0.0, 0.0, 0.0, 0.0)
MAX_ATTEMPTS = 3


class Picker(Protocol):
    """The one thing that differs between immediate baselines."""

    def pick(
        self, request: InferenceRequest, servers: Sequence[ServerView], *, now: float
    ) -> ServerView | None:
        """The server for this request, or None to refuse it; `servers` is not empty."""
        ...


class _Sent:
    """A dispatched request; `prefill_tokens` until its first token."""

    __slots__ = ("attempt", "prefill_tokens", "request", "server")

    def __init__(self, request: InferenceRequest) -> None:
        self.request = request
        self.attempt = 0
        self.prefill_tokens = 0
        self.server: ServerView | None = None


class ImmediateDispatch:
    """Answers scheduler events with a picker's choices."""

    def __init__(self, picker: Picker) -> None:
        """Start without servers."""
        self._picker = picker
        self._servers: dict[BackendId, ServerView] = {}
        self._usable: list[ServerView] = []
        self._sent: dict[RequestId, _Sent] = {}

    def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
        """Take one fact, return what follows from it."""
        match event:
            case RequestArrived():
                sent = _Sent(event.request)
                return self._send(sent, now) or [
                    Reject(event.request.id, RefusalReason.NO_CAPACITY)
                ]
            case FirstTokenReceived():
                self._prefilled(event.request_id)
            case ResponseFinished() | RequestCancelled():
                self._release(event.request_id)
            case DispatchFailed():
                return self._failed(event, now)
            case BackendLoadReported():
                self._servers[event.backend_id].load = event.load
            case BackendJoined():
                self._servers.setdefault(event.backend_id, ServerView(event.backend_id))
                self._usable = list(self._servers.values())
            case BackendLeft() | BackendDraining():
                self._usable = [s for s in self._usable if s.id != event.backend_id]
            case _:
                pass
        return ()

    def next_deadline(self) -> None:
        """Nothing ever waits."""
        return

    def _send(self, sent: _Sent, now: float) -> list[Decision]:
        """Dispatch, or nothing where the picker refuses or no server is left."""
        request = sent.request
        if not self._usable:
            return []
        server = self._picker.pick(request, self._usable, now=now)
        if server is None:
            return []
        sent.server = server
        sent.attempt += 1
        uncached = 1.0 - server.matched_share(request)
        sent.prefill_tokens = round(estimated_tokens(request) * uncached)
        server.outstanding += 1
        server.prefill_tokens += sent.prefill_tokens
        server.remember(request)
        self._sent[request.id] = sent
        return [Dispatch(request.id, server.id, request.model, NO_FORECAST, sent.attempt)]

    def _prefilled(self, request_id: RequestId) -> None:
        sent = self._sent[request_id]
        if sent.server is not None:
            sent.server.prefill_tokens -= sent.prefill_tokens
        sent.prefill_tokens = 0

    def _release(self, request_id: RequestId) -> _Sent:
        self._prefilled(request_id)
        sent = self._sent.pop(request_id)
        if sent.server is not None:
            sent.server.outstanding -= 1
        sent.server = None
        return sent

    def _failed(self, event: DispatchFailed, now: float) -> list[Decision]:
        sent = self._release(event.request_id)
        if not event.retryable:
            return []
        again = self._send(sent, now) if sent.attempt < MAX_ATTEMPTS else []
        return again or [Evict(event.request_id, RefusalReason.ATTEMPTS_EXHAUSTED)]
