"""A scheduler whose every decision is checked, and which tests can talk to in short sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    InferenceRequest,
    LLMService,
    RequestId,
    ServedModel,
    ServiceName,
    TokenUsage,
    is_critical,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.snapshot import SchedulerSnapshot
from tests.builders import make_service, serving
from tests.scheduling.invariants import (
    assert_caches_hold,
    assert_in_order,
    assert_invariants,
    on_servers,
    open_but_waiting,
    queued,
    used_by_others,
)


@dataclass
class _Life:
    """One request as an onlooker sees it, from events and decisions alone."""

    request: InferenceRequest
    service: LLMService
    expires_at: float
    state: Literal["queued", "in flight", "given up", "over"] = "queued"
    backend_id: BackendId | None = None
    tried: list[BackendId] = field(default_factory=list)
    attempts: int = 0
    adapter: str | None = None
    has_token: bool = False


class CheckedScheduler:
    """Feeds events, keeps the time, and checks each answer against the contract."""

    def __init__(self, policy: SchedulingPolicy, *, seed: int = 0) -> None:
        self.scheduler = build_scheduler(policy, Random(seed))
        self.now = 1_000.0
        self.lives: dict[RequestId, _Life] = {}
        self._policy = policy
        self._most_attempts = policy.retry.max_attempts
        self._shuts_down = False
        self._taking: dict[BackendId, tuple[ServedModel, ...]] = {}

    # -- events, in short -------------------------------------------------------------------

    def join(self, backend_id: str, *adapters: str) -> list[Decision]:
        return self.feed(ev.BackendJoined(BackendId(backend_id), serving(*adapters)))

    def drain(self, backend_id: str) -> list[Decision]:
        return self.feed(ev.BackendDraining(BackendId(backend_id)))

    def leave(self, backend_id: str, *, for_good: bool = False) -> list[Decision]:
        return self.feed(ev.BackendLeft(BackendId(backend_id), for_good))

    def report(
        self, backend_id: str, load: BackendLoad, *, taken_at: float | None = None
    ) -> list[Decision]:
        at = self.now if taken_at is None else taken_at
        return self.feed(ev.BackendLoadReported(BackendId(backend_id), load, at))

    def arrive(self, request: InferenceRequest) -> list[Decision]:
        return self.feed(ev.RequestArrived(request))

    def cancel(self, request_id: str) -> list[Decision]:
        return self.feed(ev.RequestCancelled(RequestId(request_id)))

    def first_token(self, request_id: str) -> list[Decision]:
        return self.feed(ev.FirstTokenReceived(RequestId(request_id)))

    def finish(
        self, request_id: str, usage: TokenUsage | None = None, *, ok: bool = True
    ) -> list[Decision]:
        usage = TokenUsage() if usage is None else usage
        return self.feed(ev.ResponseFinished(RequestId(request_id), usage, ok))

    def fail(
        self,
        request_id: str,
        kind: ev.FailureKind = ev.FailureKind.CONNECT,
        *,
        retryable: bool = True,
    ) -> list[Decision]:
        return self.feed(ev.DispatchFailed(RequestId(request_id), kind, retryable))

    def start_shutdown(self) -> list[Decision]:
        return self.feed(ev.DrainStarted())

    def pass_deadline(self) -> list[Decision]:
        """Let the time come that the scheduler asked to be woken at."""
        deadline = self.scheduler.next_deadline()
        assert deadline is not None, "nothing waits"
        self.now = max(self.now, deadline)
        return self.feed(ev.DeadlinePassed())

    # -- what a test asks -------------------------------------------------------------------

    def snapshot(self) -> SchedulerSnapshot:
        """The scheduler's state now."""
        return self.scheduler.snapshot(now=self.now)

    def backend_of(self, request_id: str) -> str | None:
        """The server a request is on, or None."""
        life = self.lives[RequestId(request_id)]
        return life.backend_id if life.state == "in flight" else None

    def ids_in(self, *states: str) -> list[RequestId]:
        """Ids of requests in these states, in order of arrival."""
        return [request_id for request_id, life in self.lives.items() if life.state in states]

    # -- the check --------------------------------------------------------------------------

    def feed(self, event: ev.SchedulerEvent) -> list[Decision]:
        """Hand over one event; every decision and the state after it must keep the contract."""
        arrived = self._note(event)
        shared = used_by_others(self.scheduler)
        touched = {self._server_of(event)}
        arrives = isinstance(event, ev.RequestArrived)
        if isinstance(event, ev.RequestArrived):
            self.scheduler._flights.chunks_seen(event.last_chunks)
        opened_before = open_but_waiting(
            self.scheduler, now=self.now, despite_shares=True, despite_demand=arrives
        )
        decisions = self.scheduler.handle(event, now=self.now)
        for decision in decisions:
            match decision:
                case Dispatch():
                    self._check_dispatch(decision)
                case Reject() | Evict():
                    self._check_refusal(decision, arrived)
        waiting = [t.request.id for t in queued(self.scheduler)]
        assert self.ids_in("queued") == waiting, f"after {event}: {decisions}"
        assert on_servers(self.scheduler) == {
            request_id: self.lives[request_id].backend_id
            for request_id in self.ids_in("in flight", "given up")
        }
        if arrived is not None:
            self._check_arrival(self.lives[arrived], decisions)
        dispatches = [d for d in decisions if isinstance(d, Dispatch)]
        assert_in_order(self.scheduler, dispatches, shared=shared, now=self.now)
        assert_caches_hold(self.scheduler, dispatches)
        assert_invariants(self.scheduler, now=self.now)
        touched |= {dispatch.backend_id for dispatch in dispatches}
        in_vain = {
            (name, backend_id)
            for name, backend_id in open_but_waiting(self.scheduler, now=self.now)
            if backend_id in touched or (name, backend_id) not in opened_before
        }
        assert not in_vain, f"after {event}: wait though the server is open: {in_vain}"
        return decisions

    def _server_of(self, event: ev.SchedulerEvent) -> BackendId | None:
        """The server that an event is about: nobody may wait for it in vain afterwards."""
        match event:
            case ev.FirstTokenReceived(request_id) | ev.ResponseFinished(request_id):
                life = self.lives.get(request_id)
                return None if life is None else life.backend_id
            case ev.BackendLoadReported(backend_id) | ev.ResponseProgressed(backend_id):
                return backend_id
            case _:
                return None

    def _note(self, event: ev.SchedulerEvent) -> RequestId | None:  # noqa: C901, PLR0912 - an arm per event
        """Bring the onlooker's view up to date; return the id of a new request."""
        match event:
            case ev.RequestArrived(request):
                known = self.lives.get(request.id)
                if known is None or known.state == "over":
                    self.lives.pop(request.id, None)
                    service = self._service(request.service)
                    patience_s = service.max_queue_wait_s
                    if patience_s is None or is_critical(service.priority):
                        patience_s = self._policy.queue.timeout_s
                    self.lives[request.id] = _Life(request, service, self.now + patience_s)
                    return request.id
            case ev.RequestCancelled(request_id):
                self._end_if(request_id, "queued", "in flight", "given up")
            case ev.ResponseFinished(request_id):
                self._end_if(request_id, "in flight", "given up")
            case ev.DispatchFailed(request_id):
                life = self.lives.get(request_id)
                if life is not None and life.state == "in flight":
                    retried = event.retryable and not life.has_token
                    life.state = "queued" if retried else "over"
                self._end_if(request_id, "given up")
            case ev.FirstTokenReceived(request_id):
                if request_id in self.ids_in("in flight"):
                    self.lives[request_id].has_token = True
            case ev.BackendJoined(backend_id, models):
                self._taking[backend_id] = models
            case ev.BackendDraining(backend_id):
                self._taking.pop(backend_id, None)
            case ev.BackendLeft(backend_id):
                self._taking.pop(backend_id, None)
                for life in self.lives.values():  # when it comes back, it is another server
                    life.tried = [tried for tried in life.tried if tried != backend_id]
            case ev.PoliciesChanged(policy):
                self._policy = policy
                self._most_attempts = max(self._most_attempts, policy.retry.max_attempts)
            case ev.DrainStarted():
                self._shuts_down = True
            case _:
                pass
        return None

    def _end_if(self, request_id: RequestId, *states: str) -> None:
        life = self.lives.get(request_id)
        if life is not None and life.state in states:
            life.state = "over"

    def _service(self, name: ServiceName) -> LLMService:
        return next((s for s in self._policy.pool.services if s.name == name), make_service(name))

    def _check_refusal(self, refusal: Reject | Evict, arrived: RequestId | None) -> None:
        life = self.lives[refusal.request_id]
        if refusal.reason is RefusalReason.PREEMPTED:
            self._check_preemption(life, refusal)
            return
        assert life.state == "queued", f"{refusal}, but it is {life.state}"
        life.state = "over"
        waiting = [other for other in self.lives.values() if other.state == "queued"]
        if isinstance(refusal, Reject):
            assert refusal.request_id == arrived, f"{refusal} answers no arrival"
            if refusal.reason is RefusalReason.QUEUE_FULL:
                assert not self._fits(life, waiting), f"{refusal}, but there is room"
        elif refusal.reason is RefusalReason.DISPLACED:
            assert arrived is not None
            assert is_critical(self.lives[arrived].service.priority)
            assert not is_critical(life.service.priority), f"{refusal} is Critical"
            order = list(self.lives)
            for other in waiting:
                entitled = (other.service.priority, -order.index(other.request.id))
                given_up = (life.service.priority, -order.index(life.request.id))
                assert entitled > given_up, f"{refusal}, but {other} is less entitled"
        elif refusal.reason is RefusalReason.NO_CAPACITY and self._has_bound(life):
            assert not is_critical(life.service.priority), f"{refusal} is Critical"
        elif refusal.reason is not RefusalReason.ATTEMPTS_EXHAUSTED:
            assert life.expires_at <= self.now, f"{refusal} before its time"

    def _has_bound(self, life: _Life) -> bool:
        """Whether it can be certain to miss: by its service's objective, or by its own."""
        asked_s = life.request.ttft_slo_s if self._policy.pool.trusts_client_slo else None
        return life.service.objective is not None or asked_s is not None

    def _check_preemption(self, life: _Life, refusal: Reject | Evict) -> None:
        """Only what has no token is given up, for a Critical one that waits, and once."""
        assert self._policy.queue.preempts
        assert isinstance(refusal, Evict)
        assert life.state == "in flight", f"{refusal}, but it is {life.state}"
        assert not life.has_token, f"{refusal} is streaming"
        assert not is_critical(life.service.priority), f"{refusal} is Critical"
        assert any(
            other.state == "queued" and is_critical(other.service.priority)
            for other in self.lives.values()
        ), f"{refusal} for nobody"
        life.state = "given up"

    def _fits(self, life: _Life, waiting: Sequence[_Life]) -> bool:
        """Whether the queue has room for a request, for a Critical one by giving up others."""
        limits = self._policy.queue
        if is_critical(life.service.priority):
            waiting = [other for other in waiting if is_critical(other.service.priority)]
        others = [other for other in waiting if not is_critical(other.service.priority)]
        return (
            len(waiting) < limits.max_requests
            and sum(w.request.body_bytes for w in (*waiting, life)) <= limits.max_bytes
            and (
                is_critical(life.service.priority) or len(others) < limits.max_non_critical_requests
            )
        )

    def _check_dispatch(self, dispatch: Dispatch) -> None:
        life = self.lives[dispatch.request_id]
        assert life.state == "queued", f"{dispatch}, but it is {life.state}"
        assert dispatch.backend_id in self._taking, f"{dispatch}, which takes nothing new"
        assert dispatch.backend_id not in life.tried, f"{dispatch}, tried before"
        served = {model.name: model for model in self._taking[dispatch.backend_id]}
        assert dispatch.model in served, f"{dispatch}, which does not serve that"
        life.tried.append(dispatch.backend_id)
        life.attempts += 1
        assert dispatch.attempt == life.attempts <= self._most_attempts
        there = [
            other
            for other in self.lives.values()
            if other.state in ("in flight", "given up") and other.backend_id == dispatch.backend_id
        ]
        sequences = sum(other.request.choices for other in there) + life.request.choices
        limit = self._policy.capacity.max_requests_per_backend
        assert sequences <= limit or not there, f"{dispatch} makes {sequences} of {limit}"
        life.adapter = dispatch.model if served[dispatch.model].parent is not None else None
        self._check_slots(dispatch.backend_id, life.adapter, {other.adapter for other in there})
        life.state, life.backend_id = "in flight", dispatch.backend_id

    def _check_slots(
        self, backend_id: BackendId, adapter: str | None, active: set[str | None]
    ) -> None:
        """An adapter that was not active before must fit the server's slots."""
        if adapter is None or adapter in active:
            return
        snapshot = self.scheduler.snapshot(now=self.now)
        slots = {backend.backend_id: backend.max_loras for backend in snapshot.backends}
        distinct = (active - {None}) | {adapter}
        assert len(distinct) <= slots[backend_id], f"{backend_id} would run {distinct} at once"

    def _check_arrival(self, life: _Life, decisions: Sequence[Decision]) -> None:
        """A request that waits fits the limits, with all that wait."""
        if life.state == "queued":
            everyone = [other for other in self.lives.values() if other.state == "queued"]
            assert self._fits(life, [other for other in everyone if other is not life])
            assert len(everyone) <= self._policy.queue.max_requests
            assert sum(o.request.body_bytes for o in everyone) <= self._policy.queue.max_bytes
