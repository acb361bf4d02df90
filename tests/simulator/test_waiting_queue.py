"""The engine's queue: order over adapters, and what is taken out of the middle."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.engine import EngineOptions
from gateway.simulator.engine_model import EngineStats, Sequence, Tracked
from gateway.simulator.lora_slots import LoraSlots
from gateway.simulator.waiting_queue import WaitingQueue
from tests.simulator.engine_builders import make_request


def _sequence(order: int, adapter: str | None, priority: int = 0) -> Sequence:
    return Sequence(Tracked(make_request(str(order), adapter=adapter), 0.0), (priority, order))


def _slots(max_loras: int) -> LoraSlots:
    return LoraSlots(EngineOptions(max_loras=max_loras), Random(1), EngineStats())


@given(st.lists(st.tuples(st.integers(-1, 1), st.sampled_from((None, "a", "b"))), max_size=30))
def test_sequences_come_out_by_rank_whatever_their_adapters(
    items: list[tuple[int, str | None]],
) -> None:
    queue, slots = WaitingQueue(), _slots(2)
    sequences = [_sequence(i, adapter, priority) for i, (priority, adapter) in enumerate(items)]
    for sequence in sequences:
        queue.push(sequence)
    taken = []
    while (head := queue.head(slots)) is not None:
        queue.pop(head)
        taken.append(head.rank)
    assert taken == sorted(sequence.rank for sequence in sequences)
    assert queue.count == 0


@given(st.permutations(range(12)), st.integers(1, 11))
def test_the_order_holds_after_sequences_left_the_middle(order: list[int], leaving: int) -> None:
    queue, slots = WaitingQueue(), _slots(1)
    sequences = {i: _sequence(i, "a") for i in order}
    for sequence in sequences.values():
        queue.push(sequence)
    for i in order[:leaving]:
        queue.discard(sequences[i])
    taken = []
    while (head := queue.head(slots)) is not None:
        queue.pop(head)
        taken.append(head.rank[1])
    assert taken == sorted(order[leaving:])


def test_adapters_without_a_slot_are_passed_over_and_counted() -> None:
    queue, slots = WaitingQueue(), _slots(1)
    slots.start("running")
    for i, adapter in enumerate(("x", "x", "running", None)):
        queue.push(_sequence(i, adapter))
    head = queue.head(slots)
    assert head is not None
    assert head.rank == (0, 2)
    assert queue.deferred(slots) == {"x": 2}
