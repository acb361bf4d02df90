import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.adapter_residency import AdapterResidency


def holding(*adapters: str, max_loras: int) -> AdapterResidency:
    """Slots with one request of ours in flight for each of the adapters."""
    residency = AdapterResidency(max_loras=max_loras)
    for adapter in adapters:
        residency.acquire(adapter, now=0.0)
    return residency


def test_a_new_adapter_is_admitted_while_a_slot_is_free() -> None:
    assert holding("x", max_loras=2).admits("y")
    assert not holding("x", "y", max_loras=2).admits("z")


def test_an_active_adapter_is_admitted_though_all_slots_are_in_use() -> None:
    assert holding("x", "y", max_loras=2).admits("y")


def test_an_idle_adapter_stays_resident() -> None:
    residency = holding("x", max_loras=1)
    residency.release("x", now=1.0)
    assert residency.is_resident("x")
    assert residency.active == {}
    assert residency.slots_in_use == 0


def test_the_last_of_several_requests_ends_an_adapters_activity() -> None:
    residency = holding("x", "x", max_loras=1)
    residency.release("x", now=1.0)
    assert residency.active == {"x": 1}
    assert not residency.admits("y")
    residency.release("x", now=1.0)
    assert residency.admits("y")


def test_a_load_takes_the_slot_of_the_least_recently_used_idle_adapter() -> None:
    residency = holding("old", "busy", "new", max_loras=3)
    residency.release("old", now=1.0)
    residency.release("new", now=2.0)
    residency.acquire("next", now=3.0)
    assert residency.resident == ("busy", "new", "next")


def test_use_makes_an_adapter_the_most_recent() -> None:
    residency = holding("x", "y", max_loras=2)
    residency.release("y", now=1.0)
    residency.release("x", now=2.0)
    assert residency.resident == ("y", "x")


def test_a_reported_adapter_that_is_not_ours_takes_a_slot() -> None:
    residency = holding("ours", max_loras=2)
    residency.report(("ours", "theirs"), max_loras=None, taken_at=1.0)
    assert residency.slots_in_use == 2
    assert residency.admits("theirs")
    assert not residency.admits("third")
    assert residency.is_resident("theirs")


def test_a_reported_adapter_that_we_used_after_the_report_is_ours() -> None:
    residency = holding("x", max_loras=1)
    residency.release("x", now=5.0)
    residency.report(("x",), max_loras=None, taken_at=4.9)
    assert residency.slots_in_use == 0


def test_a_reported_adapter_that_we_left_before_the_report_is_in_use_by_others() -> None:
    residency = holding("x", max_loras=1)
    residency.release("x", now=5.0)
    residency.report(("x",), max_loras=None, taken_at=5.1)
    assert residency.slots_in_use == 1


def test_the_next_report_frees_the_slots_of_others() -> None:
    residency = holding(max_loras=1)
    residency.report(("theirs",), max_loras=None, taken_at=1.0)
    residency.report((), max_loras=None, taken_at=2.0)
    assert residency.slots_in_use == 0
    assert residency.is_resident("theirs")


def test_an_adapter_of_others_that_we_use_too_takes_one_slot() -> None:
    residency = holding(max_loras=2)
    residency.report(("shared", "theirs"), max_loras=None, taken_at=1.0)
    residency.acquire("shared", now=2.0)
    assert residency.slots_in_use == 2


def test_an_adapter_of_others_is_not_admitted_where_they_use_more_than_there_are_slots() -> None:
    residency = holding("ours", max_loras=1)
    residency.report(("theirs",), max_loras=None, taken_at=1.0)
    assert not residency.admits("theirs")
    assert residency.admits("ours")


def test_the_server_tells_how_many_slots_it_has() -> None:
    residency = holding("x", max_loras=1)
    residency.report((), max_loras=3, taken_at=1.0)
    assert residency.max_loras == 3
    assert residency.admits("y")


def test_fewer_slots_evict_idle_adapters_only() -> None:
    residency = holding("busy", "idle", "later", max_loras=3)
    residency.release("idle", now=1.0)
    residency.release("later", now=2.0)
    residency.report((), max_loras=2, taken_at=3.0)
    assert residency.resident == ("busy", "later")


def test_a_restart_forgets_idle_adapters_and_those_of_others() -> None:
    residency = holding("busy", "idle", max_loras=4)
    residency.release("idle", now=1.0)
    residency.report(("theirs",), max_loras=None, taken_at=2.0)
    residency.forget()
    assert residency.resident == ("busy",)
    assert residency.slots_in_use == 1


def test_a_server_without_slots_admits_no_adapter() -> None:
    assert not AdapterResidency(max_loras=0).admits("x")


@pytest.mark.parametrize("max_loras", [1, 2, 4])
@given(steps=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
def test_slots_are_never_oversubscribed_by_what_is_admitted(
    max_loras: int, steps: list[tuple[str, bool]]
) -> None:
    residency = AdapterResidency(max_loras=max_loras)
    for now, (adapter, arrives) in enumerate(steps):
        if arrives and residency.admits(adapter):
            residency.acquire(adapter, now=float(now))
        elif adapter in residency.active:
            residency.release(adapter, now=float(now))
        assert len(residency.active) <= max_loras
        assert set(residency.active) <= set(residency.resident)
        assert len(residency.resident) <= max_loras


def test_an_adapter_that_others_use_keeps_its_slot() -> None:
    residency = AdapterResidency(max_loras=2)
    residency.report(("theirs",), max_loras=None, taken_at=1.0)
    for number, adapter in enumerate(("a", "b"), start=2):
        residency.acquire(adapter, now=number)
        residency.release(adapter, now=number)
    assert residency.resident == ("theirs", "b")
