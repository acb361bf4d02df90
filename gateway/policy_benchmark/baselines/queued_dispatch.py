"""The frame of baselines with a queue: a fixed number of requests per server, the rest waits.

A server is open while it has fewer than `limit` requests in flight; the next request of the order
goes to the open server with the fewest, ties uniform. Nothing is refused. The limit is Little's law
at the closed-form bound: rate per server times the time a request stays when its TPOT just meets
the objective.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

from gateway.policy_benchmark.baselines.immediate_dispatch import MAX_ATTEMPTS, NO_FORECAST
from gateway.policy_benchmark.baselines.server_view import ServerView, least, outstanding
from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLeft,
    DispatchFailed,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, InferenceRequest, RequestId, ServiceName


class QueueOrder(Protocol):
    """Who goes next: the one thing that differs between queueing baselines."""

    def push(self, request: InferenceRequest) -> None:
        """Queue a request; one that comes back after a failure is queued again."""
        ...

    def pop(self) -> InferenceRequest | None:
        """Take out the next request; None when the queue is empty."""
        ...

    def served(self, service: ServiceName, output_tokens: int) -> None:
        """So many more output tokens of a service have been produced."""
        ...


class _Sent:
    __slots__ = ("attempt", "output_tokens", "request", "server")

    def __init__(self, request: InferenceRequest, server: ServerView, attempt: int) -> None:
        self.request = request
        self.server = server
        self.attempt = attempt
        self.output_tokens = 0


class QueuedDispatch:
    """Answers scheduler events with an order and a limit."""

    def __init__(self, *, order: QueueOrder, limits: Mapping[BackendId, int], rng: Random) -> None:
        """`limits`: requests in flight per server, >= 1; ties are broken with `rng`."""
        self._order = order
        self._limits = limits
        self._rng = rng
        self._servers: dict[BackendId, ServerView] = {}
        self._usable: list[ServerView] = []
        self._sent: dict[RequestId, _Sent] = {}
        self._attempts: dict[RequestId, int] = {}
        self._left: set[RequestId] = set()

    def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
        """Take one fact, return what follows from it."""
        del now
        match event:
            case RequestArrived():
                self._order.push(event.request)
            case ResponseProgressed():
                for request_id, tokens in event.progress:
                    self._count(self._sent[request_id], tokens)
                return ()
            case ResponseFinished():
                sent = self._release(event.request_id)
                self._count(sent, event.usage.completion_tokens or sent.output_tokens)
            case RequestCancelled():
                if event.request_id in self._sent:
                    self._release(event.request_id)
                else:
                    self._left.add(event.request_id)
            case DispatchFailed():
                return [*self._failed(event), *self._fill()]
            case BackendJoined():
                self._servers.setdefault(event.backend_id, ServerView(event.backend_id))
                self._usable = list(self._servers.values())
            case BackendLeft() | BackendDraining():
                self._usable = [s for s in self._usable if s.id != event.backend_id]
            case _:
                return ()
        return self._fill()

    def next_deadline(self) -> None:
        """Waiting has no limit."""
        return

    def _failed(self, event: DispatchFailed) -> list[Decision]:
        sent = self._release(event.request_id)
        if not event.retryable:
            return []
        if sent.attempt >= MAX_ATTEMPTS:
            return [Evict(event.request_id, RefusalReason.ATTEMPTS_EXHAUSTED)]
        self._attempts[event.request_id] = sent.attempt
        self._order.push(sent.request)
        return []

    def _count(self, sent: _Sent, output_tokens: int) -> None:
        self._order.served(sent.request.service, output_tokens - sent.output_tokens)
        sent.output_tokens = output_tokens

    def _release(self, request_id: RequestId) -> _Sent:
        sent = self._sent.pop(request_id)
        sent.server.outstanding -= 1
        return sent

    def _fill(self) -> list[Decision]:
        decisions: list[Decision] = []
        while True:
            room = [s for s in self._usable if s.outstanding < self._limits[s.id]]
            request = self._order.pop() if room else None
            if request is None:
                return decisions
            if request.id in self._left:
                self._left.discard(request.id)
                continue
            server = least(room, outstanding, self._rng)
            server.outstanding += 1
            attempt = self._attempts.pop(request.id, 0) + 1
            self._sent[request.id] = _Sent(request, server, attempt)
            decisions.append(Dispatch(request.id, server.id, request.model, NO_FORECAST, attempt))
