"""Late requests, impossible objectives, and heads that wait for a slot.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

from collections import Counter
from dataclasses import replace

import pytest

from gateway.scheduling import events as ev
from gateway.scheduling.decisions import Dispatch, RefusalReason, Reject
from gateway.scheduling.model import (
    CRITICAL,
    NON_CRITICAL,
    BackendId,
    BackendLoad,
    LatencyObjective,
    RequestId,
    ServedModel,
    TokenUsage,
)
from gateway.scheduling.policy import FairnessDimension, PickerKind
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.scheduler_scenes import dispatched, refused, scheduler_of

SECOND = LatencyObjective(ttft_s=1.0)
CHAT = make_service("chat", priority=CRITICAL, objective=SECOND)
BATCH = make_service("batch", objective=SECOND)


# -- late -------------------------------------------------------------------------------------


def test_a_non_critical_request_is_given_up_once_it_can_only_be_late() -> None:
    checked = scheduler_of("a", services=[CHAT, BATCH])
    checked.arrive(make_request("running", service="chat"))
    checked.arrive(make_request("r1", service="batch"))
    assert refused(checked.pass_deadline()) == [("Evict", "r1", RefusalReason.NO_CAPACITY)]
    assert 1_000.8 < checked.now < 1_001.0


def test_a_late_critical_request_is_kept_and_served_after_those_in_time() -> None:
    checked = scheduler_of("a", services=[CHAT, BATCH])
    checked.arrive(make_request("running", service="chat"))
    checked.arrive(make_request("late", service="chat"))
    assert checked.pass_deadline() == []
    checked.arrive(make_request("in-time", service="chat"))
    assert dispatched(checked.finish("running")) == [("in-time", "a")]
    assert dispatched(checked.finish("in-time")) == [("late", "a")]


def test_late_requests_get_three_percent_while_others_wait_in_time() -> None:
    checked = scheduler_of("a", services=[CHAT])
    checked.arrive(make_request("running", service="chat"))
    for number in range(30):
        checked.arrive(make_request(f"late{number}", service="chat"))
    checked.now += 1.0
    checked.feed(ev.DeadlinePassed())
    served: Counter[str] = Counter()
    for number in range(200):
        checked.now += 0.01
        if number == 0:
            checked.arrive(make_request("in-time-first", service="chat"))
        checked.arrive(make_request(f"in-time{number}", service="chat"))
        (running,) = checked.ids_in("in flight")
        ((name, _),) = dispatched(checked.finish(running))
        served[name.rstrip("0123456789")] += 1
    assert served["late"] == pytest.approx(0.03 * 200, abs=2)


def with_late_and_in_time() -> CheckedScheduler:
    """Two servers with a place each; a late request and one in time wait for both of a server's."""
    checked = scheduler_of("a", "b", slots=2, services=[CHAT, make_service("batch")])
    for name in ("r1", "r2"):
        checked.arrive(make_request(name, service="chat"))
    checked.arrive(make_request("late", service="chat", choices=2))
    checked.pass_deadline()
    assert checked.arrive(make_request("in-time", service="chat", choices=2)) == []
    return checked


def test_non_critical_ones_get_nothing_while_critical_ones_are_late_and_others_wait_in_time() -> (
    None
):
    checked = with_late_and_in_time()
    assert checked.arrive(make_request("n", service="batch")) == []
    server = checked.backend_of("r1")
    other = checked.backend_of("r2")
    assert dispatched(checked.finish("r1")) == [("in-time", server), ("n", other)]


def test_non_critical_ones_go_where_late_ones_do_not_fit_once_nobody_waits_in_time() -> None:
    checked = with_late_and_in_time()
    checked.cancel("in-time")
    assert dispatched(checked.arrive(make_request("n", service="batch")))


def test_late_ones_keep_no_server_that_nobody_in_time_could_use() -> None:
    services = [
        make_service("chat-x", priority=CRITICAL, objective=SECOND, targets=(("x", 1.0),)),
        make_service("chat-y", priority=CRITICAL, objective=SECOND, targets=(("y", 1.0),)),
        make_service("batch-y", targets=(("y", 1.0),)),
    ]
    policy = make_policy(*services, slots=2, picker=PickerKind.LEAST_OUTSTANDING)
    checked = CheckedScheduler(policy)
    for name, model in (("a", "x"), ("b", "y")):
        checked.feed(ev.BackendJoined(BackendId(name), (ServedModel(model),)))
    for name in ("x1", "x2"):
        checked.arrive(make_request(name, service="chat-x"))
    checked.arrive(make_request("y1", service="chat-y"))
    checked.arrive(make_request("late", service="chat-y", choices=2))
    checked.pass_deadline()
    assert checked.arrive(make_request("in-time", service="chat-x")) == []
    assert dispatched(checked.arrive(make_request("n", service="batch-y"))) == [("n", "b")]


def behind_a_late_one() -> CheckedScheduler:
    """Two servers with a stream and a place each, which late ones leave to those in time.

    A late one that needs two places waits, and behind it a Non-Critical one.
    """
    paced = LatencyObjective(ttft_s=1.0, tpot_s=0.05)
    chat = make_service("chat", priority=CRITICAL, objective=paced)
    policy = make_policy(chat, make_service("batch"), slots=2)
    checked = CheckedScheduler(replace(policy, capacity=replace(policy.capacity, margin_late=0.01)))
    for name, request in (("a", "r1"), ("b", "r2")):
        checked.join(name)
        checked.arrive(make_request(request, service="chat"))
    checked.arrive(make_request("late", service="chat", choices=2))
    checked.pass_deadline()
    assert checked.arrive(make_request("n", service="batch")) == []
    return checked


def test_what_late_ones_leave_opens_to_others_once_the_last_of_them_is_served() -> None:
    checked = behind_a_late_one()
    server, other = checked.backend_of("r1"), checked.backend_of("r2")
    assert dispatched(checked.finish("r1")) == [("late", server), ("n", other)]


def test_what_late_ones_leave_is_for_those_in_time_meanwhile() -> None:
    checked = behind_a_late_one()
    assert dispatched(checked.arrive(make_request("in-time", service="chat")))
    assert checked.ids_in("queued") == ["late", "n"]


# -- impossible -------------------------------------------------------------------------------


def known_pool(objective: LatencyObjective, priority: int) -> CheckedScheduler:
    """A server that has shown its speed: a first token after 50 ms, a token every 20 ms."""
    service = make_service("hurried", priority=priority, objective=objective)
    checked = CheckedScheduler(make_policy(service))
    checked.join("a")
    checked.arrive(make_request("probe", max_tokens=1_000))
    checked.first_token("probe")
    for number in range(1, 31):
        checked.arrive(make_request(f"r{number}"))
        checked.now += 0.05
        checked.first_token(f"r{number}")
        checked.finish(f"r{number}", TokenUsage(100, 1, None, 1))
        checked.now += 0.15
        progress = ((RequestId("probe"), 10 * number),)
        checked.feed(ev.ResponseProgressed(BackendId("a"), progress, checked.now))
    checked.finish("probe", TokenUsage(100, 300, None, 300))
    return checked


IMPOSSIBLE = [LatencyObjective(ttft_s=0.001), LatencyObjective(ttft_s=1.0, tpot_s=0.002)]


@pytest.mark.parametrize("objective", IMPOSSIBLE)
def test_a_non_critical_request_that_no_idle_server_could_serve_in_time_is_refused_for_good(
    objective: LatencyObjective,
) -> None:
    checked = known_pool(objective, NON_CRITICAL)
    (reject,) = checked.arrive(make_request("r", service="hurried"))
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.retry_after_s) == (RefusalReason.OBJECTIVE_IMPOSSIBLE, None)


@pytest.mark.parametrize("objective", IMPOSSIBLE)
def test_a_critical_one_is_served_as_if_it_had_the_default_objective(
    objective: LatencyObjective,
) -> None:
    checked = known_pool(objective, CRITICAL)
    for number in range(8):
        (dispatch,) = checked.arrive(make_request(f"h{number}", service="hurried"))
        assert isinstance(dispatch, Dispatch)


def test_a_possible_objective_is_not_lifted() -> None:
    checked = known_pool(LatencyObjective(ttft_s=1.0, tpot_s=0.05), NON_CRITICAL)
    (dispatch,) = checked.arrive(make_request("r", service="hurried"))
    assert isinstance(dispatch, Dispatch)


def test_misses_that_could_not_be_avoided_are_reported_and_burn_nothing() -> None:
    checked = known_pool(IMPOSSIBLE[0], CRITICAL)
    checked.arrive(make_request("r", service="hurried"))
    checked.now += 0.05
    checked.first_token("r")
    services = checked.scheduler.snapshot(now=checked.now).services
    (hurried,) = [found for found in services if found.service == "hurried"]
    assert (hurried.ended, hurried.missed, hurried.attainment) == (1, 1, 0.0)
    assert hurried.burn == pytest.approx(1.0)


# -- heads that fit nowhere -------------------------------------------------------------------


def test_what_one_head_is_kept_for_is_not_for_the_next_although_it_would_fit() -> None:
    """A prompt too large to wait for does not keep the server; one that needs a calm pace does."""
    patient = LatencyObjective(ttft_s=100.0)
    calm = LatencyObjective(ttft_s=100.0, tpot_s=0.0125)
    policy = make_policy(
        make_service("large", priority=CRITICAL, objective=patient),
        make_service("calm", priority=CRITICAL, objective=calm),
        make_service("small", priority=CRITICAL, objective=patient),
        fairness=FairnessDimension.FCFS,
    )
    checked = CheckedScheduler(policy)
    checked.join("a")
    checked.report("a", BackendLoad(kv_blocks=115, block_tokens=16))
    checked.arrive(make_request("running", service="small", prompt_tokens=1_000))
    checked.first_token("running")
    assert checked.arrive(make_request("l", service="large", prompt_tokens=900)) == []
    assert checked.arrive(make_request("c", service="calm", prompt_tokens=10)) == []
    assert dispatched(checked.arrive(make_request("s1", service="small", prompt_tokens=10)))
    assert checked.arrive(make_request("s2", service="small", prompt_tokens=10)) == []
    assert checked.finish("s1") == []
    assert dispatched(checked.finish("running"))[0] == ("l", "a")


# -- slots ------------------------------------------------------------------------------------


def test_an_overtaken_head_gets_the_slot_of_an_adapter_that_is_let_drain() -> None:
    """A queue of the active adapter passes it once, and not a second time."""
    checked = CheckedScheduler(make_policy(slots=2, max_loras=1))
    checked.join("s", "lora-a", "lora-b")
    for name in ("a1", "a2"):
        checked.arrive(make_request(name, model="lora-a"))
    checked.arrive(make_request("b", model="lora-b"))
    for name in ("a3", "a4"):
        checked.arrive(make_request(name, model="lora-a"))
    assert dispatched(checked.finish("a1")) == [("a3", "s")]
    assert checked.finish("a2") == [], "lora-a drains for b"
    assert dispatched(checked.finish("a3")) == [("b", "s")]
    assert dispatched(checked.finish("b")) == [("a4", "s")]


def test_a_slot_that_was_kept_is_free_again_when_its_holder_leaves() -> None:
    checked = CheckedScheduler(make_policy(slots=2, max_loras=1))
    checked.join("s", "lora-a", "lora-b")
    for name in ("a1", "a2"):
        checked.arrive(make_request(name, model="lora-a"))
    checked.arrive(make_request("b", model="lora-b"))
    for name in ("a3", "a4"):
        checked.arrive(make_request(name, model="lora-a"))
    checked.finish("a1")
    assert checked.finish("a2") == []
    assert dispatched(checked.cancel("b")) == [("a4", "s")]


# -- servers that time opens ------------------------------------------------------------------


def _with_batch_that_time_lets_go() -> CheckedScheduler:
    """An idle server that is kept for tight requests, and long batch work that waited a second."""
    tight = make_service("tight", priority=CRITICAL, objective=LatencyObjective(ttft_s=0.15))
    services = (tight, make_service("batch"), make_service("other"))
    checked = CheckedScheduler(make_policy(*services, slots=4))
    checked.join("a")
    for number in range(20):
        checked.arrive(make_request(f"t{number}", service="tight"))
        checked.now += 0.1
        checked.finish(f"t{number}")
    checked.arrive(make_request("long", service="batch", prompt_tokens=5_000))
    assert checked.ids_in("queued") == ["long"]
    checked.now += 1.01
    return checked


def test_an_arrival_does_not_take_a_server_that_time_opened_to_one_that_waits() -> None:
    checked = _with_batch_that_time_lets_go()
    decisions = checked.arrive(make_request("short", service="other", prompt_tokens=10))
    assert dispatched(decisions)[0] == ("long", "a")


def test_a_critical_arrival_goes_before_batch_work_that_time_lets_go() -> None:
    checked = _with_batch_that_time_lets_go()
    decisions = checked.arrive(make_request("critical", service="tight"))
    assert dispatched(decisions)[0] == ("critical", "a")
