from random import Random

import pytest

from gateway.scheduling.drain_rate import DrainRate


class _NoJitter(Random):
    """Draws zero."""

    def random(self) -> float:
        return 0.0


def test_a_steady_rate_gives_the_time_for_the_queue_and_one_more() -> None:
    rate = DrainRate(rng=_NoJitter())
    for tenth in range(1_000):
        rate.dispatched(critical=True, now=tenth / 10)
    assert rate.retry_after_s(waiting=99, now=100.0) == pytest.approx(10.0, rel=0.02)


def test_a_longer_queue_means_a_longer_wait() -> None:
    rate = DrainRate(rng=_NoJitter())
    rate.dispatched(critical=True, now=0.0)
    waits_s = [rate.retry_after_s(waiting=waiting, now=0.0) for waiting in (0, 2, 4)]
    assert waits_s == sorted(set(waits_s))


def test_old_dispatches_are_forgotten() -> None:
    rate = DrainRate(rng=_NoJitter())
    rate.dispatched(critical=True, now=0.0)
    assert rate.retry_after_s(waiting=0, now=20.0) > rate.retry_after_s(waiting=0, now=0.0)


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
