"""The seven rules of the scheduler's contract, under arbitrary histories.

Rules 1 and 2: late, repeated and unknown events are part of every history and break nothing.
Rules 3 to 5 are checked by CheckedScheduler after every step. Rule 6: at the end, the recorded
history gives a second scheduler the same decisions. Rule 7 has tests of its own below.
"""

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    InferenceRequest,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import SchedulingPolicy
from tests import strategies as world
from tests.builders import serving
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.invariants import assert_everything_is_released

UNKNOWN = RequestId("never-seen")


class SchedulerRules(RuleBasedStateMachine):
    """Random histories of one scheduler."""

    sound = False

    @initialize(
        policy=world.policies(), servers=st.sampled_from((3, 2, 1, 0)), seed=st.integers(0, 3)
    )
    def start(self, policy: SchedulingPolicy, servers: int, seed: int) -> None:
        self.checked = CheckedScheduler(policy, seed=seed)
        self.policy, self.seed = policy, seed
        self.history: list[tuple[float, ev.SchedulerEvent, list[Decision]]] = []
        for backend_id in world.BACKENDS[:servers]:
            self.happens(ev.BackendJoined(backend_id, serving(*world.ADAPTERS)))

    def happens(self, event: ev.SchedulerEvent) -> list[Decision]:
        self.sound = False  # until the checks are through; a broken state proves nothing more
        decisions = self.checked.feed(event)
        self.sound = True
        self.history.append((self.checked.now, event, decisions))
        return decisions

    def requests(self, *states: str) -> st.SearchStrategy[RequestId]:
        return st.sampled_from(self.checked.ids_in(*states))

    def has(self, *states: str) -> bool:
        return bool(self.checked.ids_in(*states))

    # -- requests ---------------------------------------------------------------------------

    @rule(
        requests=st.lists(world.requests(), min_size=1, max_size=4),
        streaming=st.lists(world.backend_ids, max_size=2, unique=True),
    )
    def arrive(self, requests: list[InferenceRequest], streaming: list[BackendId]) -> None:
        last_chunks = tuple((backend_id, self.checked.now - 0.004) for backend_id in streaming)
        for request in requests:
            name = RequestId(f"r{len(self.checked.lives)}")
            self.happens(ev.RequestArrived(world.renamed(request, name), last_chunks))

    @precondition(lambda self: self.has("queued", "in flight", "given up"))
    @rule(data=st.data(), request=world.requests())
    def arrives_again(self, data: st.DataObject, request: InferenceRequest) -> None:
        living = data.draw(self.requests("queued", "in flight", "given up"))
        assert self.happens(ev.RequestArrived(world.renamed(request, living))) == []

    @precondition(lambda self: self.has("queued"))
    @rule(data=st.data())
    def is_cancelled_while_queued(self, data: st.DataObject) -> None:
        self.happens(ev.RequestCancelled(data.draw(self.requests("queued"))))

    @precondition(lambda self: self.has("given up"))
    @rule(data=st.data(), kind=world.failure_kinds)
    def is_closed_where_it_was_given_up(self, data: st.DataObject, kind: ev.FailureKind) -> None:
        """Whatever ends it only frees its server; nothing before that is more than ignored."""
        closed = data.draw(self.requests("given up"))
        self.happens(ev.FirstTokenReceived(closed))
        endings: list[ev.SchedulerEvent] = [
            ev.RequestCancelled(closed),
            ev.ResponseFinished(closed, TokenUsage()),
            ev.DispatchFailed(closed, kind, retryable=True),
        ]
        self.happens(data.draw(st.sampled_from(endings)))

    @precondition(lambda self: self.has("in flight"))
    @rule(data=st.data())
    def is_cancelled_in_flight(self, data: st.DataObject) -> None:
        self.happens(ev.RequestCancelled(data.draw(self.requests("in flight"))))

    @precondition(lambda self: self.has("in flight"))
    @rule(data=st.data())
    def gets_its_first_token(self, data: st.DataObject) -> None:
        self.happens(ev.FirstTokenReceived(data.draw(self.requests("in flight"))))

    @precondition(lambda self: self.has("in flight"))
    @rule(data=st.data(), usage=world.usages(), ok=st.booleans())
    def finishes(self, data: st.DataObject, usage: TokenUsage, *, ok: bool) -> None:
        self.happens(ev.ResponseFinished(data.draw(self.requests("in flight")), usage, ok))

    @precondition(lambda self: self.has("in flight"))
    @rule(
        data=st.data(),
        kind=world.failure_kinds,
        retryable=st.sampled_from((True, True, True, True, False)),
    )
    def fails(self, data: st.DataObject, kind: ev.FailureKind, *, retryable: bool) -> None:
        failed = data.draw(self.requests("in flight"))
        self.happens(ev.DispatchFailed(failed, kind, retryable))

    @precondition(lambda self: self.has("in flight"))
    @rule(data=st.data(), stream_events=st.integers(0, 300))
    def progresses(self, data: st.DataObject, stream_events: int) -> None:
        backend_id = data.draw(world.backend_ids)
        progress = ((data.draw(self.requests("in flight", "over")), stream_events),)
        self.happens(ev.ResponseProgressed(backend_id, progress, self.checked.now))

    @rule(data=st.data(), usage=world.usages(), kind=world.failure_kinds)
    def hears_what_cannot_be(
        self, data: st.DataObject, usage: TokenUsage, kind: ev.FailureKind
    ) -> None:
        """Late, early and unknown ids change nothing but the count of ignored events."""
        wrong = data.draw(st.sampled_from([*self.checked.ids_in("over", "queued"), UNKNOWN]))
        events: list[ev.SchedulerEvent] = [
            ev.FirstTokenReceived(wrong),
            ev.ResponseFinished(wrong, usage),
            ev.DispatchFailed(wrong, kind, retryable=True),
        ]
        if wrong not in self.checked.ids_in("queued"):
            events.append(ev.RequestCancelled(wrong))
        for event in events:
            ignored = self.ignored_events()
            assert self.happens(event) == []
            assert self.ignored_events() == ignored + 1

    def ignored_events(self) -> int:
        return self.checked.scheduler.snapshot(now=self.checked.now).ignored_events

    # -- servers ----------------------------------------------------------------------------

    @rule(event=world.server_events())
    def server_changes(self, event: world.ServerEvent) -> None:
        decisions = self.happens(event)
        assert all(isinstance(decision, Dispatch) for decision in decisions)

    @rule(
        backend_id=world.backend_ids,
        load=world.backend_loads(),
        age_s=st.sampled_from((0.0, 0.05, 5.0)),
    )
    def reports(self, backend_id: BackendId, load: BackendLoad, age_s: float) -> None:
        self.happens(ev.BackendLoadReported(backend_id, load, self.checked.now - age_s))

    # -- time, policies ---------------------------------------------------------------------

    @rule(pause_s=world.pauses_s, times=st.integers(1, 2))
    def time_passes(self, pause_s: float, times: int) -> None:
        self.checked.now += pause_s
        for _ in range(times):
            self.happens(ev.DeadlinePassed())
            deadline = self.checked.scheduler.next_deadline()
            assert deadline is None or deadline > self.checked.now

    @precondition(lambda self: len(self.history) % 7 == 6)
    @rule(policy=world.policies())
    def policies_change(self, policy: SchedulingPolicy) -> None:
        self.happens(ev.PoliciesChanged(policy))

    @precondition(lambda self: len(self.history) > 20 and len(self.history) % 9 == 0)
    @rule()
    def shuts_down(self) -> None:
        assert self.happens(ev.DrainStarted()) == []

    # -- the end ----------------------------------------------------------------------------

    def teardown(self) -> None:
        if not self.sound:
            return
        while self.has("queued", "in flight", "given up"):
            living = self.checked.ids_in("queued", "in flight", "given up")
            self.happens(ev.RequestCancelled(living[0]))
        assert_everything_is_released(self.checked.scheduler)
        again = build_scheduler(self.policy, Random(self.seed))
        for now, event, decisions in self.history:
            assert again.handle(event, now=now) == decisions


TestSchedulerRules = SchedulerRules.TestCase
