import pytest

from gateway.policy_benchmark.service_tally import ServiceTally


def tally(buckets: dict[int, tuple[int, int]]) -> ServiceTally:
    made = ServiceTally()
    for bucket, (offered, met) in buckets.items():
        made.buckets[bucket] = [offered, met]
        made.offered += offered
        made.met += met
    return made


def test_blocks_of_a_minute_sum_twelve_buckets() -> None:
    assert tally({0: (10, 5), 11: (10, 9), 12: (4, 4)}).blocks() == [[20, 14], [4, 4]]


def test_the_largest_deficit_is_over_any_five_minutes() -> None:
    # Seconds 0-5 lose 2 of 10; 300 s later another 10 lose 3: never in one window.
    assert tally({0: (10, 8), 60: (10, 7)}).largest_deficit(0.95) == pytest.approx(0.25)
    # 295 s later they are: 15 of 20.
    assert tally({0: (10, 8), 59: (10, 7)}).largest_deficit(0.95) == pytest.approx(0.2)


def test_a_service_above_its_target_has_no_deficit() -> None:
    assert tally({0: (10, 10)}).largest_deficit(0.95) == 0.0


def test_merging_adds_everything_up() -> None:
    one, other = tally({0: (10, 5)}), tally({0: (2, 2), 3: (1, 0)})
    one.merge(other)
    assert (one.offered, one.met) == (13, 7)
    assert one.attainment == pytest.approx(7 / 13)
    assert one.series() == [(0.0, 12, 7), (15.0, 1, 0)]


def test_without_requests_there_is_no_attainment() -> None:
    assert ServiceTally().attainment is None
