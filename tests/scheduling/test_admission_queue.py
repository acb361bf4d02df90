from gateway.scheduling.admission_queue import AdmissionQueue, lane_of
from gateway.scheduling.model import (
    CRITICAL,
    NON_CRITICAL,
    BackendId,
    LLMService,
    RequestPhase,
)
from gateway.scheduling.policy import QueuePolicy
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_service, make_tracked

CHAT = make_service("chat", priority=CRITICAL)
VIP = make_service("vip", priority=5)
BATCH = make_service("batch", priority=NON_CRITICAL)
BULK = make_service("bulk", priority=-2)


def queue_of(*waiting: TrackedRequest, policy: QueuePolicy | None = None) -> AdmissionQueue:
    queue = AdmissionQueue(policy=QueuePolicy() if policy is None else policy)
    for tracked in waiting:
        queue.push(tracked)
    return queue


def waiting(sequence: int, service: LLMService = CHAT, *, body_bytes: int = 500) -> TrackedRequest:
    return make_tracked(
        f"r{sequence}",
        sequence=sequence,
        arrived_at=float(sequence),
        service=service,
        body_bytes=body_bytes,
    )


def heads_by_lane(queue: AdmissionQueue) -> list[list[TrackedRequest]]:
    return [queue.heads(lane) for lane in queue.lanes()]


def give_up(queue: AdmissionQueue, tracked: TrackedRequest) -> None:
    queue.forget(tracked)
    tracked.enter(RequestPhase.CANCELLED)


def dispatch(queue: AdmissionQueue, tracked: TrackedRequest, backend_id: str = "a") -> None:
    queue.take_head(tracked)
    tracked.enter(RequestPhase.DISPATCHED)
    tracked.attempts += 1
    tracked.tried = (*tracked.tried, (BackendId(backend_id), 1))


def come_back(queue: AdmissionQueue, tracked: TrackedRequest) -> None:
    tracked.enter(RequestPhase.QUEUED)
    queue.push(tracked)


def test_a_flow_is_served_by_original_arrival() -> None:
    first, second, third = waiting(1), waiting(2), waiting(3)
    queue = queue_of(second, third, first)
    assert heads_by_lane(queue) == [[first]]
    assert queue.take_head(first) is second


def test_arrivals_of_one_instant_are_served_by_their_number() -> None:
    early, late = make_tracked("early", sequence=1), make_tracked("late", sequence=2)
    assert heads_by_lane(queue_of(late, early)) == [[early]]


def test_heads_come_by_priority_highest_first() -> None:
    vip, chat, batch, bulk = waiting(4, VIP), waiting(3), waiting(2, BATCH), waiting(1, BULK)
    assert heads_by_lane(queue_of(bulk, batch, chat, vip)) == [[vip], [chat], [batch], [bulk]]


def test_each_target_model_of_a_service_has_its_own_head() -> None:
    one = make_tracked("one", target="lora-a", service=CHAT)
    other = make_tracked("other", target="lora-b", service=CHAT)
    queue = queue_of(one, other)
    assert heads_by_lane(queue) == [[one, other]]
    assert queue.has_flow(make_tracked("third", target="lora-b", service=CHAT))
    assert not queue.has_flow(make_tracked("fourth", target="lora-c", service=CHAT))
    assert not queue.has_flow(make_tracked("fifth", target="lora-b", service=BATCH))


def test_a_request_that_comes_back_keeps_its_place_but_waits_apart() -> None:
    returning, fresh = waiting(1), waiting(2)
    queue = queue_of(returning, fresh)
    dispatch(queue, returning)
    come_back(queue, returning)
    assert heads_by_lane(queue) == [[fresh, returning]]
    assert queue.requests == 2


def test_what_was_queued_before_a_dispatch_is_not_found_twice() -> None:
    returning = waiting(1)
    queue = queue_of(returning, waiting(2))
    queue.forget(returning)  # dispatched out of turn, so that its first entry stays behind
    returning.enter(RequestPhase.DISPATCHED)
    returning.attempts = 1
    returning.tried = ((BackendId("a"), 1),)
    come_back(queue, returning)
    heads = heads_by_lane(queue)[0]
    assert sorted(head.request.id for head in heads) == ["r1", "r2"]


def test_the_last_of_a_flow_has_no_successor() -> None:
    only = waiting(1)
    queue = queue_of(only)
    assert queue.take_head(only) is None
    assert heads_by_lane(queue) == []
    assert queue.requests == 0


def test_requests_and_bytes_are_counted_apart_for_critical_ones() -> None:
    chat, batch = waiting(1, CHAT, body_bytes=10), waiting(2, BATCH, body_bytes=200)
    queue = queue_of(chat, batch)
    counted = (queue.requests, queue.bytes, queue.critical_requests, queue.critical_bytes)
    assert counted == (2, 210, 1, 10)
    give_up(queue, chat)
    give_up(queue, batch)
    counted = (queue.requests, queue.bytes, queue.critical_requests, queue.critical_bytes)
    assert counted == (0, 0, 0, 0)


def test_one_more_than_the_limit_of_requests_does_not_fit() -> None:
    queue = queue_of(waiting(1), policy=QueuePolicy(max_requests=2))
    assert queue.has_room(waiting(2))
    queue.push(waiting(2))
    assert not queue.has_room(waiting(3))


def test_bytes_up_to_the_limit_fit_and_one_more_does_not() -> None:
    queue = queue_of(waiting(1, body_bytes=60), policy=QueuePolicy(max_bytes=100))
    assert queue.has_room(waiting(2, body_bytes=40))
    assert not queue.has_room(waiting(2, body_bytes=41))


def test_the_limit_of_non_critical_requests_binds_only_them() -> None:
    queue = queue_of(waiting(1, BATCH), policy=QueuePolicy(max_non_critical_requests=1))
    assert not queue.has_room(waiting(2, BATCH))
    assert queue.has_room(waiting(2, CHAT))
    assert queue_of(waiting(1, CHAT), policy=QueuePolicy(max_non_critical_requests=1)).has_room(
        waiting(2, BATCH)
    )


def test_new_limits_hold_for_the_next_arrival() -> None:
    queue = queue_of(waiting(1))
    queue.reconfigure(QueuePolicy(max_requests=1))
    assert not queue.has_room(waiting(2))


def test_a_critical_arrival_displaces_the_newest_of_the_lowest_level() -> None:
    batch, old, new = waiting(9, BATCH), waiting(1, BULK), waiting(2, BULK)
    queue = queue_of(batch, new, old, policy=QueuePolicy(max_requests=3))
    assert queue.displaced_by(waiting(10)) is new
    give_up(queue, new)
    assert queue.displaced_by(waiting(10)) is old
    give_up(queue, old)
    assert queue.displaced_by(waiting(10)) is batch


def test_of_one_instant_the_later_arrival_is_displaced() -> None:
    early = make_tracked("early", sequence=1, service=BATCH)
    late = make_tracked("late", sequence=2, service=BATCH)
    assert queue_of(early, late).displaced_by(waiting(3)) is late


def test_a_non_critical_arrival_displaces_nobody() -> None:
    assert queue_of(waiting(1, BULK)).displaced_by(waiting(2, BATCH)) is None


def test_nobody_is_displaced_where_critical_requests_alone_fill_the_queue() -> None:
    by_number = queue_of(waiting(1), waiting(2, BATCH), policy=QueuePolicy(max_requests=1))
    assert by_number.displaced_by(waiting(3)) is None
    by_bytes = queue_of(
        waiting(1, body_bytes=60), waiting(2, BATCH), policy=QueuePolicy(max_bytes=100)
    )
    assert by_bytes.displaced_by(waiting(3, body_bytes=41)) is None
    assert by_bytes.displaced_by(waiting(3, body_bytes=40)) is not None


def test_the_next_expiry_is_that_of_the_least_patient() -> None:
    patient = make_tracked("patient", wait_s=30.0)
    hasty = make_tracked("hasty", sequence=2, wait_s=1.0)
    queue = queue_of(patient, hasty)
    assert queue.next_expiry_at() == 1.0
    assert queue.first_expired(now=0.9) is None
    assert queue.first_expired(now=1.0) is hasty
    give_up(queue, hasty)
    assert queue.next_expiry_at() == 30.0
    give_up(queue, patient)
    assert queue.next_expiry_at() is None
    assert queue.first_expired(now=99.0) is None


def test_the_depth_of_a_service_includes_all_its_targets() -> None:
    queue = queue_of(
        make_tracked("one", target="lora-a", service=CHAT),
        make_tracked("two", target="lora-b", service=CHAT),
        waiting(3, BATCH),
    )
    assert queue.depth_by_service() == {(CRITICAL, "chat"): 2, (NON_CRITICAL, "batch"): 1}


def test_ten_thousand_cancelled_requests_leave_little_behind() -> None:
    """The heaps are rebuilt when most of what they hold is dead, so memory follows the living."""
    queue = AdmissionQueue(policy=QueuePolicy())
    anchor = waiting(0, BATCH)
    queue.push(anchor)
    for sequence in range(1, 10_000):
        tracked = waiting(sequence, BATCH)
        queue.push(tracked)
        give_up(queue, tracked)
    assert queue.requests == 1
    heaps = (
        queue._by_expiry,
        queue._displaceable,
        next(iter(queue._lanes[lane_of(anchor)].values())).heap,
    )
    assert max(len(heap._entries) for heap in heaps) < 100


def test_requests_that_come_back_again_and_again_are_kept_once() -> None:
    requests = [waiting(sequence, BATCH) for sequence in range(100)]
    queue = queue_of(*requests)
    for attempt in range(20):
        for tracked in requests:
            dispatch(queue, tracked, f"server-{attempt}")
        for tracked in requests:
            come_back(queue, tracked)
    assert len(queue._by_expiry._entries) < 300
