from collections.abc import Sequence

import pytest

from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    DeadlinePassed,
    DispatchFailed,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId
from gateway.simulator.engine import EngineOptions
from gateway.simulator.fleet_model import Ending, Fault, FleetOptions
from tests.simulator.fleet_rig import NO_FORECAST, PROFILE, Recorder, planned, run_fleet


def test_a_request_alone_takes_its_prefill_its_decodes_and_the_delays() -> None:
    (outcome,) = run_fleet([Recorder()], [planned("r1", 1.0, prompt=100, output=3)])
    # API overhead, one prefill step of 100 tokens, 1 ms each way.
    prefill = PROFILE.c0_s + PROFILE.c1_s + 100 * PROFILE.c3_s + PROFILE.c4_s * 100**2 / 2
    assert outcome.first_token_at == pytest.approx(
        1.0 + 0.001 + PROFILE.api_overhead_s + prefill + 0.001, abs=1e-4
    )
    decode = PROFILE.c0_s + PROFILE.c1_s + 101 * PROFILE.c2_s
    assert outcome.first_token_at is not None
    assert outcome.ended_at - outcome.first_token_at == pytest.approx(2 * decode, abs=1e-4)
    assert outcome.ending is Ending.COMPLETED


def test_a_policy_hears_of_a_request_what_the_live_driver_would_tell() -> None:
    policy = Recorder()
    (outcome,) = run_fleet([policy], [planned("r1", 1.0, output=5)])
    about = [e for _, e in policy.heard if not isinstance(e, BackendLoadReported)]
    assert [type(e) for e in about] == [
        BackendJoined,
        RequestArrived,
        FirstTokenReceived,
        ResponseFinished,
    ]
    ((finished_at, finished),) = policy.of(ResponseFinished)
    assert isinstance(finished, ResponseFinished)
    assert finished.usage.completion_tokens == 5
    assert finished_at == outcome.ended_at


def test_an_answer_that_is_not_streamed_shows_no_first_token() -> None:
    policy = Recorder()
    run_fleet([policy], [planned("r1", 1.0, output=200, streamed=False)])
    assert policy.of(FirstTokenReceived) == []


def test_a_split_of_arrivals_over_gateways_is_even_and_each_request_has_one() -> None:
    policies = [Recorder(), Recorder()]
    requests = [planned(f"r{n}", n * 0.05, output=2) for n in range(400)]
    outcomes = run_fleet(policies, requests)
    counts = [len(policy.of(RequestArrived)) for policy in policies]
    assert sum(counts) == len(outcomes) == 400
    # n = 400, p = 1/2: sigma 10
    assert abs(counts[0] - 200) < 40
    assert [len(p.of(ResponseFinished)) for p in policies] == counts


def test_a_refused_request_ends_at_once() -> None:
    class Refusing(Recorder):
        def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
            super().handle(event, now=now)
            if isinstance(event, RequestArrived):
                return [Reject(event.request.id, RefusalReason.NO_CAPACITY)]
            return ()

    (outcome,) = run_fleet([Refusing()], [planned("r1", 1.0)])
    assert outcome.ending is Ending.REFUSED
    assert outcome.ended_at == 1.0
    assert outcome.reason is RefusalReason.NO_CAPACITY


def test_an_eviction_after_dispatch_frees_the_engine_and_is_confirmed() -> None:
    class Evicting(Recorder):
        def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
            decisions = super().handle(event, now=now)
            if isinstance(event, FirstTokenReceived):
                return [Evict(event.request_id, RefusalReason.PREEMPTED)]
            return decisions

    policy = Evicting()
    outcomes = run_fleet(
        [policy], [planned("r1", 1.0, output=5000), planned("r2", 2.0, output=5000)]
    )
    assert [o.ending for o in outcomes] == [Ending.REFUSED, Ending.REFUSED]
    assert len(policy.of(RequestCancelled)) == 2
    later = [e for at, e in policy.of(BackendLoadReported) if 1.3 < at < 2.0]
    assert all(isinstance(e, BackendLoadReported) and e.load.running == 0 for e in later)


def test_a_deadline_is_announced_when_it_comes() -> None:
    class Waiting(Recorder):
        """Holds each request until the deadline, then gives it up."""

        def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
            super().handle(event, now=now)
            if isinstance(event, RequestArrived):
                self.deadline = now + 0.25
            if isinstance(event, DeadlinePassed):
                self.deadline = None
                return [Evict(planned("r1", 0.0).request.id, RefusalReason.QUEUE_TIMEOUT)]
            return ()

    (outcome,) = run_fleet([Waiting()], [planned("r1", 1.0)])
    assert outcome.ended_at == pytest.approx(1.25)


def test_a_deadline_that_stays_due_does_not_stop_time() -> None:
    policy = Recorder(deadline=1.0)
    run_fleet([policy], [planned("r1", 0.99, output=3)])
    times = [at for at, _ in policy.of(DeadlinePassed)]
    assert times[0] == 1.0
    assert len(times) < 200


def test_requests_of_a_dead_server_go_elsewhere_unless_a_token_was_seen() -> None:
    policy = Recorder()
    requests = [planned("old", 0.0, output=2), planned("late", 0.9, output=400)]
    requests += [planned("new0", 0.9995, output=2), planned("new1", 0.9996, output=2)]
    options = FleetOptions(faults=(Fault(1.0, 1),))
    outcomes = {
        str(o.planned.request.id): o
        for o in run_fleet([policy], requests, servers=2, options=options)
    }
    # Servers in turn: old s0, late s1 (streaming at 1 s), new0 s0, new1 s1 (not answered yet).
    assert outcomes["late"].ending is Ending.FAILED
    assert outcomes["new1"].ending is Ending.COMPLETED
    assert outcomes["new1"].backend_id == "s0"
    failures = {
        e.request_id: e.retryable
        for _, e in policy.of(DispatchFailed)
        if isinstance(e, DispatchFailed)
    }
    assert failures == {"late": False, "new1": True}


def test_a_dispatch_to_a_server_that_is_dead_unnoticed_fails_and_is_tried_again() -> None:
    policy = Recorder()
    options = FleetOptions(faults=(Fault(1.0, 1),), detection_s=0.5)
    requests = [planned("r0", 1.1, output=2), planned("r1", 1.1, output=2)]
    outcomes = run_fleet([policy], requests, servers=2, options=options)
    assert [o.backend_id for o in outcomes] == ["s0", "s0"]
    ((failed_at, _),) = policy.of(DispatchFailed)
    assert failed_at == pytest.approx(1.102)


def test_the_death_of_a_server_is_noticed_after_the_detection_time() -> None:
    policy = Recorder()
    options = FleetOptions(faults=(Fault(1.0, 1),), detection_s=0.2)
    run_fleet([policy], [planned("r0", 0.5, output=150)], servers=2, options=options)
    ((left_at, left),) = policy.of(BackendLeft)
    assert left == BackendLeft(BackendId("s1"))
    assert left_at == pytest.approx(1.2)


def test_a_full_engine_refuses_and_the_policy_may_try_again() -> None:
    class Once(Recorder):
        def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
            decisions = super().handle(event, now=now)
            if isinstance(event, DispatchFailed):
                return [Evict(event.request_id, RefusalReason.ATTEMPTS_EXHAUSTED)]
            return decisions

    engine = EngineOptions(max_queued=1, noise_sigma=0.0)
    outcomes = run_fleet(
        [Once()], [planned(f"r{n}", 1.0, output=2) for n in range(3)], engine=engine
    )
    endings = [o.ending for o in outcomes]
    assert endings.count(Ending.COMPLETED) == 1
    assert endings.count(Ending.REFUSED) == 2


def test_what_has_not_ended_at_the_cut_off_is_unfinished() -> None:
    requests = [planned("r1", 1.0, output=5000), planned("r2", 9.0)]
    outcomes = run_fleet([Recorder()], requests, until=5.0)
    assert [(o.planned.request.id, o.ending) for o in outcomes] == [("r1", Ending.UNFINISHED)]


def test_an_adapter_is_what_the_dispatch_names() -> None:
    class Renaming(Recorder):
        def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
            return [
                Dispatch(d.request_id, d.backend_id, "tuned", NO_FORECAST)
                for d in super().handle(event, now=now)
                if isinstance(d, Dispatch)
            ]

    policy = Renaming()
    engine = EngineOptions(max_loras=1, noise_sigma=0.0)
    run_fleet([policy], [planned("r1", 1.0, output=100)], engine=engine)
    adapters = {
        e.load.active_adapters
        for _, e in policy.of(BackendLoadReported)
        if isinstance(e, BackendLoadReported)
    }
    assert ("tuned",) in adapters


def test_requests_are_read_one_by_one_so_that_memory_is_bounded() -> None:
    live = 0
    most = 0

    def stream() -> object:
        nonlocal live, most
        for number in range(200):
            live += 1
            most = max(most, live)
            yield planned(f"r{number}", number * 1.0, output=2)

    class Counting(Recorder):
        def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
            nonlocal live
            if isinstance(event, ResponseFinished):
                live -= 1
            return super().handle(event, now=now)

    run_fleet([Counting()], stream())  # type: ignore[arg-type]  # a generator of requests
    assert most <= 2
