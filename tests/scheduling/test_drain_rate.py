from random import Random

import pytest

from gateway.scheduling.drain_rate import DrainRate


class _NoJitter(Random):
    """Draws zero."""

    def random(self) -> float:
        return 0.0


def test_a_steady_rate_gives_the_time_for_the_queue_and_one_more_at_half_of_it() -> None:
    rate = DrainRate(rng=_NoJitter())
    for tenth in range(1_000):
        rate.dispatched(critical=True, now=tenth / 10)
    assert rate.retry_after_s(waiting=99, now=100.0) == pytest.approx(20.0, rel=0.02)


def test_a_longer_queue_means_a_longer_wait() -> None:
    rate = DrainRate(rng=_NoJitter())
    for _ in range(10):
        rate.dispatched(critical=True, now=0.0)
    waits_s = [rate.retry_after_s(waiting=waiting, now=0.0) for waiting in (0, 2, 4)]
    assert waits_s == sorted(set(waits_s))


def test_old_dispatches_are_forgotten() -> None:
    rate = DrainRate(rng=_NoJitter())
    for _ in range(20):
        rate.dispatched(critical=True, now=0.0)
    fresh_s = rate.retry_after_s(waiting=5, now=0.0)
    assert fresh_s < 60.0
    assert rate.retry_after_s(waiting=5, now=20.0) > fresh_s


def test_the_wait_is_at_least_a_second() -> None:
    rate = DrainRate(rng=_NoJitter())
    for _ in range(1_000):
        rate.dispatched(critical=True, now=0.0)
    assert rate.retry_after_s(waiting=0, now=0.0) == 1.0


def test_the_wait_is_at_most_a_minute() -> None:
    rate = DrainRate(rng=_NoJitter())
    rate.dispatched(critical=True, now=0.0)
    assert rate.retry_after_s(waiting=10_000, now=0.0) == 60.0


def test_before_any_dispatch_only_a_queue_makes_clients_wait_long() -> None:
    assert DrainRate(rng=_NoJitter()).retry_after_s(waiting=0, now=0.0) == 1.0
    assert DrainRate(rng=_NoJitter()).retry_after_s(waiting=1, now=0.0) == 60.0


# -- predicted waits --------------------------------------------------------------------------


def draining(*, critical_per_s: int = 0, non_critical_per_s: int = 0) -> DrainRate:
    """A queue has stood for a hundred seconds while servers took so many."""
    rate = DrainRate(rng=_NoJitter())
    for second in range(100):
        rate.non_critical_wait_s(critical=0, non_critical=1, now=second)
        for critical, count in ((True, critical_per_s), (False, non_critical_per_s)):
            for number in range(count):
                rate.dispatched(critical=critical, now=second + number / count)
    return rate


def test_the_wait_is_the_time_for_all_that_wait_before() -> None:
    rate = draining(non_critical_per_s=10)
    wait_s = rate.non_critical_wait_s(critical=0, non_critical=49, now=100.0)
    assert wait_s == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize("critical", [0, 20])
def test_critical_ones_leave_at_the_rate_of_all_and_non_critical_ones_at_their_own(
    critical: int,
) -> None:
    rate = draining(critical_per_s=8, non_critical_per_s=2)
    wait_s = rate.non_critical_wait_s(critical=critical, non_critical=9, now=100.0)
    assert wait_s == pytest.approx(critical / 10 + 10 / (2 + 0.3), rel=0.1)


def test_behind_critical_ones_that_take_everything_only_few_may_hope() -> None:
    rate = draining(critical_per_s=100)
    waits_s = [
        rate.non_critical_wait_s(critical=0, non_critical=waiting, now=100.0) for waiting in (0, 30)
    ]
    assert waits_s == pytest.approx([1 / 3, 31 / 3], rel=0.1)


def test_what_non_critical_ones_had_before_critical_ones_took_all_is_soon_nothing_to_wait_for() -> (
    None
):
    rate = draining(critical_per_s=10, non_critical_per_s=10)
    waits_s = []
    for second in range(100, 105):
        for number in range(20):
            rate.dispatched(critical=True, now=second + number / 20)
        waits_s.append(rate.non_critical_wait_s(critical=0, non_critical=4, now=second + 1.0))
    assert waits_s[0] < 1.0
    assert waits_s[-1] > 3.0


def test_a_first_second_of_waiting_says_nothing_yet() -> None:
    rate = draining(critical_per_s=10)
    assert rate.non_critical_wait_s(critical=5, non_critical=0, now=103.0) == 0.0
    assert rate.non_critical_wait_s(critical=5, non_critical=5, now=103.9) == 0.0
    assert rate.non_critical_wait_s(critical=5, non_critical=5, now=104.0) > 0.0


def test_it_goes_on_while_hardly_two_seconds_pass_without_a_closed_door() -> None:
    rate = draining(critical_per_s=10)
    for now in (103.0, 104.9):
        rate.non_critical_wait_s(critical=5, non_critical=0, now=now)
    assert rate.non_critical_wait_s(critical=5, non_critical=0, now=106.8) > 0.0


def test_it_goes_on_while_one_waits_however_long_no_other_comes() -> None:
    rate = draining(critical_per_s=10)
    assert rate.non_critical_wait_s(critical=5, non_critical=1, now=110.0) > 0.0


def test_that_none_was_served_lately_says_nothing_where_none_came() -> None:
    rate = draining(non_critical_per_s=10)
    for tenth in range(200):
        rate.dispatched(critical=True, now=100.0 + tenth / 10)
    bulk_s = [rate.non_critical_wait_s(critical=0, non_critical=n, now=120.0) for n in range(1000)]
    assert max(bulk_s) == 0.0


def test_where_hardly_anything_was_dispatched_no_wait_is_predicted() -> None:
    rate = DrainRate(rng=_NoJitter())
    for tenth in range(500):
        rate.non_critical_wait_s(critical=0, non_critical=1, now=tenth / 10)
    assert rate.non_critical_wait_s(critical=5, non_critical=5, now=50.0) == 0.0


# -- clients that come back -------------------------------------------------------------------


def test_clients_that_are_sent_away_together_are_told_to_come_one_after_the_other() -> None:
    rate = draining(critical_per_s=10)
    waits_s = [rate.retry_after_s(waiting=20, now=100.0) for _ in range(30)]
    assert waits_s == sorted(set(waits_s))
    assert waits_s[-1] - waits_s[0] == pytest.approx(5.8, rel=0.1)


def test_those_sent_away_are_forgotten_at_the_rate_of_the_drain() -> None:
    rate = draining(critical_per_s=10)
    first_s = [rate.retry_after_s(waiting=20, now=100.0) for _ in range(30)][-1]
    for number in range(100):
        rate.dispatched(critical=True, now=100.0 + number / 10)
    assert rate.retry_after_s(waiting=20, now=110.0) < first_s


def test_a_jitter_of_a_quarter_spreads_those_who_come_back() -> None:
    waits_s = []
    for seed in range(50):
        rate = DrainRate(rng=Random(seed))
        rate.dispatched(critical=True, now=0.0)
        waits_s.append(rate.retry_after_s(waiting=1, now=0.0))
    assert min(waits_s) >= 40.0
    assert max(waits_s) <= 50.0
    assert max(waits_s) - min(waits_s) > 3.0


def refusals(rate: DrainRate, *, since: float, until: float) -> float:
    """A refusal every quarter of a second; the last one's wait."""
    wait_s, now = 0.0, since
    while now <= until:
        for _ in range(2_500):
            rate.dispatched(critical=True, now=now)
        wait_s = rate.retry_after_s(waiting=0, now=now)
        now += 0.25
    return wait_s


def test_an_overload_is_expected_to_last_as_long_again_as_it_has_lasted() -> None:
    rate = DrainRate(rng=_NoJitter())
    assert refusals(rate, since=0.0, until=8.0) == pytest.approx(8.0, abs=0.1)


def test_or_as_long_as_those_before_it() -> None:
    rate = DrainRate(rng=_NoJitter())
    for began_at in range(0, 200, 20):
        refusals(rate, since=began_at, until=began_at + 10.0)
    assert refusals(rate, since=200.0, until=203.0) == pytest.approx(7.0, abs=0.2)
    assert refusals(rate, since=203.0, until=212.0) == pytest.approx(12.0, abs=0.2)


def test_a_single_refusal_is_no_overload() -> None:
    rate = DrainRate(rng=_NoJitter())
    for second in range(0, 100, 10):
        assert refusals(rate, since=second, until=second) == pytest.approx(1.0)
