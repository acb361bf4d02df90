"""Runs a scheduler on an event loop: feeds it facts, wakes those who wait for its orders.

Scheduling has two timers: the driver's for the scheduler's next deadline, and that of OpenStreams.
Everything runs on one loop, so that between two awaits nothing changes.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from gateway.runtime.clock import Clock
from gateway.runtime.open_streams import OpenStreams
from gateway.scheduling.breakers import HealthChange
from gateway.scheduling.decisions import Decision, Dispatch, RefusalReason
from gateway.scheduling.events import (
    DeadlinePassed,
    DispatchFailed,
    FailureKind,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    SchedulerEvent,
)
from gateway.scheduling.model import InferenceRequest, RequestId, ServiceName, TokenUsage
from gateway.scheduling.scheduler import Scheduler
from gateway.scheduling.snapshot import Explanation, SchedulerSnapshot

_SHORTEST_TIMER_S: Final = 0.001
"""A timer may fire a little early (uvloop rounds to milliseconds); this keeps it from spinning."""


class NotAdmitted(Exception):  # noqa: N818 - an answer to the client, not an error of ours
    """The scheduler refused the request or gave it up."""

    def __init__(self, reason: RefusalReason, retry_after_s: float | None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after_s = retry_after_s


class SchedulerObserver(Protocol):
    """Sees every transition; the journal and the metrics are such."""

    def observed(self, event: SchedulerEvent, decisions: Sequence[Decision], *, now: float) -> None:
        """Take note of one event and what followed from it. Must not raise."""
        ...


class HealthObserver(Protocol):
    """Hears of servers that were ejected or taken back; the log is such."""

    def __call__(self, change: HealthChange) -> None:
        """Take note of one change. Must not raise."""
        ...


class Lease:
    """One request's hold on the scheduler; made by `SchedulerDriver.lease`.

    Leaving the `async with` without an ending counts as cancelled: close the upstream before.

    Attributes:
        request: what was asked for.
        stream_events: written by `progressed`, read for the reports of progress.
    """

    __slots__ = (
        "_decision",
        "_dispatched",
        "_driver",
        "_given_up",
        "_over",
        "_owner",
        "_streaming",
        "_streams",
        "_task",
        "_waiter",
        "request",
        "stream_events",
    )

    def __init__(
        self,
        driver: "SchedulerDriver",
        request: InferenceRequest,
        owner: asyncio.Task[None] | None,
    ) -> None:
        self._driver = driver
        self._owner = owner
        self._streams = driver.streams
        self._decision: Decision | None = None
        self._dispatched: Dispatch | None = None
        self._given_up = False
        self._over = False
        self._streaming = False
        self._task: asyncio.Task[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.request = request
        self.stream_events = 0

    async def __aenter__(self) -> Self:
        """Hand the request to the scheduler; its answer may be there at once."""
        self._driver.open(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release what is still held."""
        if not self._over:
            self._end(RequestCancelled(self.request.id))

    async def dispatch(self) -> Dispatch:
        """Wait for a server. After a retryable failure, wait for the next one.

        If the request is given up while it runs there, the calling task is cancelled; see
        `given_up`.

        Raises:
            NotAdmitted: the request was refused or given up.
        """
        while self._decision is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        decision = self._decision
        if isinstance(decision, Dispatch):
            self._task = self._owner or asyncio.current_task()
            return decision
        raise NotAdmitted(decision.reason, decision.retry_after_s)

    def given_up(self) -> NotAdmitted | None:
        """Why the task was cancelled, if the scheduler gave the request up and nobody else did it.

        Call it once, in the task that was cancelled, when the upstream is closed.
        """
        decision, task = self._decision, self._task
        if not self._given_up or task is None or decision is None or isinstance(decision, Dispatch):
            return None
        return None if task.uncancel() else NotAdmitted(decision.reason, decision.retry_after_s)

    def first_token(self) -> None:
        """Tell the arrival of the first output token; once per attempt, streamed answers only."""
        self._streaming = True
        self._driver.deliver(FirstTokenReceived(self.request.id))

    def progressed(self, stream_events: int, *, now: float) -> None:
        """Note how many events the stream has had; called per network chunk, so it only stores."""
        self.stream_events = stream_events
        if self._dispatched is not None:
            self._streams.chunk_seen(self._dispatched.backend_id, now)

    def failed(self, kind: FailureKind, *, retryable: bool) -> None:
        """The attempt ended without a complete answer and its upstream is closed.

        If `retryable`, `dispatch` tells what happens next; otherwise the lease is over. After the
        first token nothing is retryable: ValueError, as no answer would ever come.
        """
        if retryable and self._streaming:
            raise ValueError(f"{self.request.id!r} cannot be retried after its first token")
        event = DispatchFailed(self.request.id, kind, retryable)
        if retryable:
            self._leave_backend()
            if isinstance(self._decision, Dispatch):
                self._decision = None
            self._driver.deliver(event)
        else:
            self._end(event)

    def finished(self, usage: TokenUsage, *, ok: bool = True) -> None:
        """The answer is complete (`ok` False: an engine error in the stream, or a 4xx)."""
        self._end(ResponseFinished(self.request.id, usage, ok))

    def decide(self, decision: Decision) -> None:
        """Take the scheduler's order; called by the driver."""
        self._decision = decision
        if isinstance(decision, Dispatch):
            self._dispatched = decision
            self.stream_events = 0
            self._streams.opened(decision.backend_id, self.request.id, self)
        elif self._dispatched is not None:
            # The server is released when the task has left it; one that has not yet heard of its
            # dispatch hears of this instead.
            if self._waiter is None and self._task is not None:
                self._given_up = self._task.cancel()
        else:
            self._over = True
            self._driver.close(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, event: SchedulerEvent) -> None:
        self._over = True
        self._leave_backend()
        self._driver.close(self)
        self._driver.deliver(event)

    def _leave_backend(self) -> None:
        if self._dispatched is not None:
            self._streams.closed(self._dispatched.backend_id, self.request.id)
            self._dispatched = None


class SchedulerDriver:
    """One pool's scheduler on one event loop.

    Attributes:
        streams: what runs on each server.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        clock: Clock,
        observers: Sequence[SchedulerObserver] = (),
        health_observers: Sequence[HealthObserver] = (),
    ) -> None:
        """Drive `scheduler`; the timers start with the first event."""
        self._scheduler = scheduler
        self._clock = clock
        self._observers = tuple(observers)
        self._health_observers = tuple(health_observers)
        self.streams = OpenStreams(self.deliver)
        self._leases: dict[RequestId, Lease] = {}
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._deadline_at: float | None = None
        self._stopped = False

    @property
    def open_leases(self) -> int:
        """Requests between arrival and release."""
        return len(self._leases)

    def lease(self, request: InferenceRequest, owner: asyncio.Task[None] | None = None) -> Lease:
        """The only way to a place on a server: `async with driver.lease(request) as lease`.

        `owner` is the task that will call `dispatch`, where the caller has it at hand.
        """
        return Lease(self, request, owner)

    def deliver(self, event: SchedulerEvent) -> None:
        """Feed one fact to the scheduler and carry out what it orders."""
        now = self._clock()
        decisions = self._scheduler.handle(event, now=now)
        for decision in decisions:
            lease = self._leases.get(decision.request_id)
            if lease is not None:
                lease.decide(decision)
        self._arm_deadline(now)
        for observer in self._observers:
            observer.observed(event, decisions, now=now)
        for change in self._scheduler.take_health_changes():
            for tell in self._health_observers:
                tell(change)

    def snapshot(self) -> SchedulerSnapshot:
        """The scheduler's state now."""
        return self._scheduler.snapshot(now=self._clock())

    def tokens_of_events(self, service: ServiceName, events: int) -> int:
        """Output tokens of a stream that told no usage, estimated from its events."""
        return self._scheduler.tokens_of_events(service, events)

    def explain(self, request_id: RequestId) -> Explanation | None:
        """Why a recent request went where it did."""
        return self._scheduler.explain(request_id)

    def stop(self) -> None:
        """Cancel the timers for good; requests that still wait are the callers' to cancel."""
        self._stopped = True
        self.streams.stop()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = self._deadline_at = None

    # -- called by leases -------------------------------------------------------------------

    def open(self, lease: Lease) -> None:
        """Register a lease and hand its request to the scheduler.

        Raises:
            ValueError: a request of this id is open already.
        """
        if lease.request.id in self._leases:
            raise ValueError(f"request id {lease.request.id!r} is in use")
        self._leases[lease.request.id] = lease
        self.deliver(RequestArrived(lease.request, self.streams.take_new_chunks()))

    def close(self, lease: Lease) -> None:
        """Forget a lease that is over."""
        self._leases.pop(lease.request.id, None)

    # -- the timer --------------------------------------------------------------------------

    def _arm_deadline(self, now: float) -> None:
        deadline_at = self._scheduler.next_deadline()
        if deadline_at is None or self._stopped:
            return
        if self._deadline_at is not None and self._deadline_at <= deadline_at:
            return  # a timer that fires too early finds nothing due and arms the next one
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_at = deadline_at
        self._deadline_timer = asyncio.get_running_loop().call_later(
            max(_SHORTEST_TIMER_S, deadline_at - now), self._on_deadline
        )

    def _on_deadline(self) -> None:
        self._deadline_timer = self._deadline_at = None
        self.deliver(DeadlinePassed())
