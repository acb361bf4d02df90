from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.histogram import BucketCounts

BOUNDS = (0.5, 1.0, 2.0)


def test_a_value_on_a_bound_belongs_below_it() -> None:
    buckets = BucketCounts(BOUNDS)
    buckets.observe(1.0)
    assert buckets.cumulative() == [("0.5", 0.0), ("1.0", 1.0), ("2.0", 1.0), ("+Inf", 1.0)]


def test_a_value_above_all_bounds_is_in_the_last_bucket_only() -> None:
    buckets = BucketCounts(BOUNDS)
    buckets.observe(7.0)
    assert [count for _, count in buckets.cumulative()] == [0.0, 0.0, 0.0, 1.0]


@given(values=st.lists(st.floats(0.0, 10.0)))
def test_each_bucket_counts_the_values_not_above_its_bound(values: list[float]) -> None:
    buckets = BucketCounts(BOUNDS)
    for value in values:
        buckets.observe(value)
    assert [count for _, count in buckets.cumulative()] == [
        sum(value <= float(bound) for value in values) for bound in (*BOUNDS, "inf")
    ]
    assert buckets.sum == sum(values)
