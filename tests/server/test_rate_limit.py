import pytest

from gateway.server.rate_limit import RateLimit, format_reset


def test_a_minutes_worth_passes_at_once_and_then_evenly() -> None:
    limit = RateLimit(60, now=0.0)
    for _ in range(60):
        assert limit.wait_s(1, now=0.0) == 0
        limit.take(1, now=0.0)
    assert limit.wait_s(1, now=0.0) == pytest.approx(1.0)
    assert limit.wait_s(1, now=1.0) == pytest.approx(0.0)
    assert limit.remaining(now=1.0) == 1


def test_a_long_pause_saves_up_no_more_than_a_minutes_worth() -> None:
    limit = RateLimit(60, now=0.0)
    limit.take(60, now=0.0)
    assert limit.remaining(now=1e6) == 60
    assert limit.reset_s(now=1e6) == 0


def test_more_than_a_minutes_worth_passes_when_the_bucket_is_full() -> None:
    limit = RateLimit(60, now=0.0)
    assert limit.wait_s(1_000, now=0.0) == 0
    limit.take(1, now=0.0)
    assert limit.wait_s(1_000, now=0.0) == pytest.approx(1.0)


def test_a_debt_is_paid_back_before_anything_passes() -> None:
    limit = RateLimit(60, now=0.0)
    limit.take(90, now=0.0)
    assert limit.remaining(now=0.0) == 0
    assert limit.wait_s(1, now=0.0) == pytest.approx(31.0)
    assert limit.reset_s(now=0.0) == pytest.approx(90.0)


def test_what_was_not_used_is_given_back_but_never_more_than_fits() -> None:
    limit = RateLimit(60, now=0.0)
    limit.take(50, now=0.0)
    limit.take(-20, now=0.0)
    assert limit.remaining(now=0.0) == 30
    limit.take(-1_000, now=0.0)
    assert limit.remaining(now=0.0) == 60


def test_a_changed_limit_keeps_the_share_that_is_used_up() -> None:
    limit = RateLimit(100, now=0.0)
    limit.take(75, now=0.0)
    limit.change(1_000, now=0.0)
    assert limit.remaining(now=0.0) == 250


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.1201, "121ms"), (1, "1s"), (8.64, "8.64s"), (60, "1m0s"), (361.5, "6m1.5s")],
)
def test_a_time_is_written_as_openai_writes_it(seconds: float, text: str) -> None:
    assert format_reset(seconds) == text
