"""Who is given up for a Critical request that no server is open to, and that it helps."""

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from gateway.scheduling import events as ev
from gateway.scheduling.decisions import Decision, Evict, RefusalReason
from gateway.scheduling.model import (
    CRITICAL,
    BackendId,
    BackendLoad,
    LatencyObjective,
    LLMService,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import FairnessDimension, QueuePolicy
from tests.builders import BASE, make_policy, make_request, make_service, serving
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.scheduler_scenes import dispatched, refused

TOP = make_service("top", priority=10)
VIP = make_service("vip", priority=5)
CHAT = make_service("chat", priority=CRITICAL)
BATCH = make_service("batch")
BULK = make_service("bulk", priority=-2)
HURRIED = make_service("hurried", objective=LatencyObjective(ttft_s=0.3), priority=CRITICAL)
"""With the prior, a server prefills about 25 tokens a millisecond."""


def pool(
    *backends: str,
    slots: int = 2,
    services: Sequence[LLMService] = (TOP, VIP, CHAT, BATCH, BULK, HURRIED),
    preempts: bool = True,
    max_loras: int = 1,
    backlog_steps: float = 1_000.0,
) -> CheckedScheduler:
    policy = make_policy(
        *services, slots=slots, max_loras=max_loras, queue=QueuePolicy(preempts=preempts)
    )
    capacity = replace(policy.capacity, engine_backlog_steps=backlog_steps)
    checked = CheckedScheduler(replace(policy, capacity=capacity))
    for backend in backends:
        checked.join(backend, "lora-a", "lora-b")
    return checked


def arrive(
    checked: CheckedScheduler,
    request_id: str,
    service: str,
    *,
    model: str = BASE,
    tokens: int = 100,
    choices: int = 1,
    max_tokens: int = 50,
) -> list[Decision]:
    checked.now += 0.001
    return checked.arrive(
        make_request(
            request_id,
            service=service,
            model=model,
            prompt_tokens=tokens,
            choices=choices,
            max_tokens=max_tokens,
        )
    )


def given_up(decisions: Sequence[Decision]) -> list[str]:
    assert {(kind, reason) for kind, _, reason in refused(decisions)} <= {
        ("Evict", RefusalReason.PREEMPTED)
    }
    return [request_id for _, request_id, _ in refused(decisions)]


# -- that it is done, and told -----------------------------------------------------------------


def test_a_critical_request_gets_the_place_of_the_newest_non_critical_one() -> None:
    checked = pool("a")
    arrive(checked, "old", "batch")
    arrive(checked, "new", "batch")
    assert given_up(arrive(checked, "c", "chat")) == ["new"]
    assert checked.backend_of("c") is None, "the server may still be at work for the other one"
    assert dispatched(checked.cancel("new")) == [("c", "a")]


def test_nobody_is_given_up_unless_it_is_wanted() -> None:
    checked = pool("a", preempts=False)
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    assert arrive(checked, "c", "chat") == []


def test_who_is_given_up_is_told_when_to_come_again() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "n", "batch")
    (evicted,) = arrive(checked, "c", "chat")
    assert isinstance(evicted, Evict)
    assert evicted.retry_after_s is not None
    assert evicted.retry_after_s >= 1.0


def test_the_server_is_free_however_the_stream_of_one_given_up_ends() -> None:
    closed = RequestId("n")
    endings: tuple[ev.SchedulerEvent, ...] = (
        ev.RequestCancelled(closed),
        ev.ResponseFinished(closed, TokenUsage(100, 5)),
        ev.DispatchFailed(closed, ev.FailureKind.RESET, retryable=True),
    )
    for ending in endings:
        checked = pool("a", slots=1)
        arrive(checked, "n", "batch")
        arrive(checked, "c", "chat")
        assert dispatched(checked.feed(ending)) == [("c", "a")]
        assert checked.snapshot().backends[0].requests == 1


def test_a_token_that_comes_too_late_changes_nothing() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "n", "batch")
    arrive(checked, "c", "chat")
    assert checked.first_token("n") == []
    assert checked.snapshot().ignored_events == 1


def test_it_counts_as_one_miss_of_its_service_and_not_against_the_server() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "n", "batch")
    arrive(checked, "c", "chat")
    checked.cancel("n")
    services = {service.service: service for service in checked.snapshot().services}
    assert (services["batch"].ended, services["batch"].missed) == (1, 1)
    (backend,) = checked.snapshot().backends
    assert (backend.failures, backend.failure_rate) == ({}, 0.0)


def test_its_tokens_are_given_back() -> None:
    services = (CHAT, make_service("x"), make_service("y"))
    policy = make_policy(*services, slots=1, queue=QueuePolicy(preempts=True))
    fairness = replace(policy.fairness, dimension=FairnessDimension.TOKENS)
    checked = CheckedScheduler(replace(policy, fairness=fairness))
    checked.join("a")
    arrive(checked, "x0", "x")
    arrive(checked, "y1", "y")
    arrive(checked, "c", "chat")
    checked.cancel("x0")
    arrive(checked, "x1", "x", tokens=10, max_tokens=10)
    assert dispatched(checked.finish("c", TokenUsage(100, 50))) == [("y1", "a")]
    assert dispatched(checked.finish("y1", TokenUsage(100, 50))) == [("x1", "a")]


# -- who is not given up -----------------------------------------------------------------------


def test_one_that_streams_is_never_given_up() -> None:
    checked = pool("a")
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    checked.first_token("n1")
    assert given_up(arrive(checked, "c0", "chat")) == ["n0"]
    checked.cancel("n0")
    assert arrive(checked, "c1", "chat") == []


def test_one_whose_progress_was_seen_is_not_given_up() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "n", "batch")
    request_id = checked.ids_in("in flight")[0]
    checked.feed(ev.ResponseProgressed(BackendId("a"), ((request_id, 3),), checked.now))
    assert arrive(checked, "c", "chat") == []


def test_the_rest_of_a_broken_answer_is_not_given_up() -> None:
    checked = pool("a", slots=1)
    checked.arrive(structs.replace(make_request("rest", service="batch"), target=BASE))
    assert arrive(checked, "c", "chat") == []


def test_a_critical_one_is_not_given_up_for_one_of_a_higher_level() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "c", "chat")
    assert arrive(checked, "v", "vip") == []


def test_nobody_is_given_up_for_a_non_critical_request() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "low", "bulk")
    assert arrive(checked, "n", "batch") == []


def test_nobody_is_given_up_for_a_request_that_is_late_already() -> None:
    checked = pool("a", slots=1)
    arrive(checked, "n", "batch")
    arrive(checked, "h", "hurried", tokens=20_000)
    assert checked.ids_in("given up") == []


def test_the_lowest_level_goes_first() -> None:
    checked = pool("a")
    arrive(checked, "low", "bulk")
    arrive(checked, "n", "batch")
    assert given_up(arrive(checked, "c", "chat")) == ["low"]


# -- as few as make room -----------------------------------------------------------------------


def test_no_more_are_given_up_than_the_choices_need() -> None:
    checked = pool("a", slots=4)
    for number in range(4):
        arrive(checked, f"n{number}", "batch")
    assert given_up(arrive(checked, "c", "chat", choices=2)) == ["n3", "n2"]


def test_a_large_one_makes_smaller_ones_needless() -> None:
    checked = pool("a", slots=9)
    checked.report("a", BackendLoad(kv_blocks=100, block_tokens=10))
    arrive(checked, "large", "batch", tokens=700, max_tokens=10)
    arrive(checked, "small", "batch", tokens=200, max_tokens=10)
    assert given_up(arrive(checked, "c", "chat", tokens=600, max_tokens=10)) == ["large"]


def test_the_server_where_the_fewest_are_needed_is_chosen() -> None:
    checked = pool("a")
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    checked.join("b")
    arrive(checked, "wide", "batch", choices=2)
    assert given_up(arrive(checked, "c", "chat", choices=2)) == ["wide"]


def test_while_room_is_on_its_way_no_more_are_given_up() -> None:
    checked = pool("a", slots=3)
    for number in range(3):
        arrive(checked, f"n{number}", "batch")
    assert given_up(arrive(checked, "c0", "chat")) == ["n2"]
    assert arrive(checked, "c1", "chat") == []
    decisions = checked.cancel("n2")
    assert dispatched(decisions[:1]) == [("c0", "a")]
    assert given_up(decisions[1:]) == ["n1"], "now there is nothing on its way for the second"


def test_of_several_servers_each_makes_room_for_one() -> None:
    checked = pool("a", "b", slots=1)
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    first, second = arrive(checked, "c", "chat"), arrive(checked, "v", "vip")
    assert sorted(given_up(first) + given_up(second)) == ["n0", "n1"]


# -- what makes room, and what does not --------------------------------------------------------


def test_prefills_behind_the_step_under_way_are_given_up_for_a_first_token_in_time() -> None:
    checked = pool("a", slots=99)
    arrive(checked, "n0", "batch", tokens=2_000)
    arrive(checked, "n1", "batch", tokens=6_000)
    assert given_up(arrive(checked, "h", "hurried")) == ["n1"]
    assert dispatched(checked.cancel("n1")) == [("h", "a")]


def test_a_prefill_that_the_engine_is_in_the_midst_of_is_not_given_up_in_vain() -> None:
    checked = pool("a", slots=99)
    arrive(checked, "n0", "batch", tokens=2_000)
    arrive(checked, "h", "hurried", tokens=6_500)
    assert checked.ids_in("given up") == []


def test_a_backlog_of_prefill_makes_room() -> None:
    checked = pool("a", slots=99, backlog_steps=1.0)
    arrive(checked, "n0", "batch", tokens=1_000)
    arrive(checked, "n1", "batch", tokens=1_500)
    assert given_up(arrive(checked, "c", "chat")) == ["n1"]


def test_nobody_is_given_up_where_the_pace_of_streams_closes_the_server() -> None:
    strict = make_service("strict", objective=LatencyObjective(tpot_s=0.02), priority=CRITICAL)
    checked = pool("a", slots=999, services=(strict, BATCH))
    for number in range(200):
        arrive(checked, f"n{number}", "batch", tokens=1_000, max_tokens=500)
        checked.first_token(f"n{number}")
    arrive(checked, "n", "batch")
    assert arrive(checked, "s", "strict") == []
    assert checked.ids_in("queued") == ["s"]


def test_nobody_is_given_up_where_the_engine_has_a_queue_of_its_own() -> None:
    checked = pool("a", slots=9)
    arrive(checked, "n", "batch")
    checked.report("a", BackendLoad(waiting=50))
    assert arrive(checked, "c", "chat") == []


def test_nobody_is_given_up_on_a_server_where_the_request_failed() -> None:
    checked = pool("a", "b", slots=1)
    arrive(checked, "c", "chat")
    arrive(checked, "n", "batch")
    where = checked.backend_of("c")
    checked.leave("a" if where == "b" else "b")
    assert checked.fail("c") == []


def test_an_adapter_slot_is_freed_by_all_who_use_it() -> None:
    services = (replace(CHAT, targets=()), BATCH)
    checked = pool("a", slots=9, services=services)
    for number in range(2):
        arrive(checked, f"n{number}", "default", model="lora-a")
    assert given_up(arrive(checked, "c", "chat", model="lora-b")) == ["n1", "n0"]
    checked.cancel("n1")
    assert dispatched(checked.cancel("n0")) == [("c", "a")]


def test_an_adapter_that_one_streams_with_frees_no_slot() -> None:
    services = (replace(CHAT, targets=()), BATCH)
    checked = pool("a", slots=9, services=services)
    for number in range(2):
        arrive(checked, f"n{number}", "default", model="lora-a")
    checked.first_token("n0")
    assert arrive(checked, "c", "chat", model="lora-b") == []


def test_slots_that_others_hold_are_not_freed() -> None:
    services = (replace(CHAT, targets=()), BATCH)
    checked = pool("a", slots=9, services=services)
    arrive(checked, "n", "default", model="lora-a")
    load = BackendLoad(active_adapters=("lora-x", "lora-a"), max_loras=1)
    checked.report("a", load, taken_at=checked.now + 1.0)
    assert arrive(checked, "c", "chat", model="lora-b") == []


def test_all_that_may_be_given_up_may_be_too_few() -> None:
    checked = pool("a", slots=3)
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    checked.first_token("n0")
    assert arrive(checked, "c", "chat", choices=3) == []


def test_a_slot_and_places_are_made_by_the_same_ones_where_they_can() -> None:
    services = (replace(CHAT, targets=()), BATCH)
    checked = pool("a", slots=3, services=services)
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    arrive(checked, "n2", "default", model="lora-a")
    victims = given_up(arrive(checked, "c", "chat", model="lora-b", choices=2))
    assert victims == ["n2", "n1"]


def test_of_many_servers_those_with_most_prefill_are_looked_at() -> None:
    names = [f"s{number:02}" for number in range(20)]
    checked = pool(*names, slots=1)
    for number in range(20):
        arrive(checked, f"n{number}", "batch", tokens=100 + number)
    (victim,) = given_up(arrive(checked, "c", "chat"))
    assert int(victim[1:]) >= 4


# -- those that wait while a server gets free --------------------------------------------------


def test_a_server_that_does_not_serve_the_model_makes_no_room() -> None:
    services = (replace(CHAT, targets=()), BATCH)
    checked = pool("a", slots=1, services=services)
    checked.feed(ev.BackendJoined(BackendId("b"), serving()))
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    on_a = next(n for n in ("n0", "n1") if checked.backend_of(n) == "a")
    assert given_up(arrive(checked, "c0", "chat", model="lora-a")) == [on_a]
    assert arrive(checked, "c1", "chat", model="lora-a") == []
    assert dispatched(checked.cancel(on_a)) == [("c0", "a")]


def test_those_that_are_late_already_are_not_helped_when_a_server_gets_free() -> None:
    checked = pool("a", "b", slots=1)
    arrive(checked, "n0", "batch")
    arrive(checked, "n1", "batch")
    arrive(checked, "c", "chat")
    arrive(checked, "h", "hurried", tokens=20_000)
    (victim,) = checked.ids_in("given up")
    assert dispatched(checked.cancel(victim)) == [("c", checked.backend_of("c"))]


def test_what_is_kept_for_one_that_was_overtaken_is_not_cleared_for_a_later_one() -> None:
    checked = pool("a", slots=3)
    arrive(checked, "n0", "batch")
    checked.first_token("n0")
    arrive(checked, "wide", "vip", choices=3)
    arrive(checked, "c0", "chat")
    arrive(checked, "n1", "batch")
    assert checked.ids_in("queued") == ["wide", "n1"], "only one has gone before the wide one"
    arrive(checked, "c1", "chat")
    assert checked.ids_in("given up") == []


def test_when_a_server_gets_free_nothing_is_cleared_of_what_is_kept_for_another() -> None:
    checked = pool("a", "b", slots=3)
    for number in range(2):
        arrive(checked, f"old{number}", "batch")
        checked.first_token(f"old{number}")
    for number in range(2):
        arrive(checked, f"n{number}", "batch")
    arrive(checked, "wide", "vip", choices=3)
    arrive(checked, "c0", "chat")
    (victim,) = given_up(arrive(checked, "top", "top", choices=2))
    arrive(checked, "c1", "chat")
    assert dispatched(checked.cancel(victim)) == [("top", checked.backend_of("top"))]
    assert checked.ids_in("queued") == ["wide", "c1"]
