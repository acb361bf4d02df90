"""The circuit breaker of one server, and of a pool, in virtual time."""

import pytest

from gateway.scheduling.breaker import Breaker, Circuit
from gateway.scheduling.model import RequestId
from gateway.scheduling.policy import BreakerPolicy

POLICY = BreakerPolicy(
    consecutive_failures=3,
    failure_share=0.5,
    min_requests=10,
    first_ejection_s=1.0,
    longest_ejection_s=4.0,
)


def fail(breaker: Breaker, times: int = 1, *, at: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(POLICY, dispatched_at=at, now=at)


def open_for(breaker: Breaker, *, since: float) -> float:
    assert breaker.circuit is Circuit.OPEN
    return breaker.open_until - since


def test_so_many_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    fail(breaker, 2)
    assert breaker.circuit is Circuit.CLOSED
    fail(breaker)
    assert breaker.shut
    assert breaker.reason == "3 failures in a row"
    assert breaker.ejections == 1


def test_an_answer_that_begins_ends_the_row() -> None:
    breaker = Breaker()
    fail(breaker, 2)
    breaker.answered(dispatched_at=0.0, now=0.0)
    fail(breaker, 2)
    assert breaker.circuit is Circuit.CLOSED


def test_a_share_of_failures_opens_it_once_there_are_enough_requests() -> None:
    breaker = Breaker()
    for number in range(10):
        assert breaker.circuit is Circuit.CLOSED, number
        if number % 2:
            fail(breaker)
        else:
            breaker.completed(dispatched_at=0.0, now=0.0)
    assert breaker.circuit is Circuit.OPEN
    assert breaker.reason == "50% of requests fail"


def test_failures_long_ago_are_forgotten() -> None:
    breaker = Breaker()
    for at in range(0, 3_000, 100):
        breaker.completed(dispatched_at=at, now=float(at))
        fail(breaker, at=float(at))
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.failure_rate(2_900.0) > 0.1
    assert breaker.failure_rate(3_100.0) == 0.0


def test_it_stays_open_twice_as_long_after_each_probe_that_fails_up_to_a_bound() -> None:
    breaker = Breaker()
    fail(breaker, 3, at=10.0)
    waits = [open_for(breaker, since=10.0)]
    for at in (20.0, 30.0, 40.0):
        breaker.half_open()
        assert breaker.awaits_probe
        fail(breaker, at=at)
        waits.append(open_for(breaker, since=at))
    assert waits == [1.0, 2.0, 4.0, 4.0]
    assert breaker.ejections == 1


def test_a_probe_that_is_answered_closes_it_and_clears_what_was_held_against_it() -> None:
    breaker = Breaker()
    fail(breaker, 3)
    breaker.half_open()
    breaker.probe = RequestId("probe")
    assert breaker.shut
    breaker.answered(dispatched_at=2.0, now=2.5)
    assert str(breaker.circuit) == "closed"
    assert breaker.probe != RequestId("probe")
    assert breaker.failure_rate(2.5) == 0.0


def test_requests_from_before_it_opened_neither_close_it_nor_lengthen_its_time() -> None:
    breaker = Breaker()
    fail(breaker, 3, at=10.0)
    breaker.completed(dispatched_at=9.0, now=10.5)
    breaker.failed(POLICY, dispatched_at=9.0, now=10.5)
    assert open_for(breaker, since=10.0) == 1.0


@pytest.mark.parametrize(("well_for_s", "next_s"), [(1.0, 2.0), (5.0, 1.0)])
def test_only_after_some_time_of_being_well_it_begins_with_a_short_time_again(
    well_for_s: float, next_s: float
) -> None:
    breaker = Breaker()
    fail(breaker, 3, at=10.0)
    breaker.answered(dispatched_at=11.0, now=12.0)
    again_at = 12.0 + well_for_s
    fail(breaker, 3, at=again_at)
    assert open_for(breaker, since=again_at) == next_s
    assert breaker.ejections == 2
