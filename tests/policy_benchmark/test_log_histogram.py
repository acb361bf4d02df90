from random import Random

import pytest

from gateway.policy_benchmark.log_histogram import LogHistogram


def test_quantiles_are_within_half_a_percent_of_the_exact_ones() -> None:
    rng = Random(1)
    values = sorted(rng.lognormvariate(0.0, 2.0) for _ in range(5000))
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    for probability in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(1, -(-int(probability * 5000) // 1)) - 1]
        assert histogram.quantile(probability) == pytest.approx(exact, rel=0.0051)


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert LogHistogram().percentiles() == {"p50": None, "p90": None, "p95": None, "p99": None}


def test_merging_counts_both() -> None:
    one, other = LogHistogram(), LogHistogram()
    one.add(1.0)
    other.add(100.0)
    one.merge(other)
    assert one.count == 2
    assert one.quantile(1.0) == pytest.approx(100.0, rel=0.006)


def test_zero_counts_as_the_smallest_value() -> None:
    histogram = LogHistogram()
    histogram.add(0.0)
    assert histogram.quantile(0.5) == pytest.approx(1e-6, rel=0.02)


def test_the_distribution_for_plots_ends_at_one_and_is_short() -> None:
    histogram = LogHistogram()
    for number in range(1, 3000):
        histogram.add(number * 0.01)
    points = histogram.cumulative()
    assert points[-1][1] == 1.0
    assert len(points) <= 200
    assert points == sorted(points)
