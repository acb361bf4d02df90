import pytest

from gateway.telemetry.quantiles import quantile

BOUNDS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.5, [10, 0, 0, 0], 0.5),
        (0.5, [0, 10, 0, 0], 1.5),
        (0.95, [0, 0, 10, 0], 3.9),
        (0.75, [5, 0, 5, 0], 3.0),
        (0.5, [5, 0, 5, 0], 1.0),
        (0.5, [0, 0, 0, 3], 4.0),
        (0.5, [0, 0, 0, 0], None),
    ],
)
def test_values_count_as_spread_evenly_in_their_bucket(
    share: float, counts: list[int], expected: float | None
) -> None:
    assert quantile(share, BOUNDS, counts) == pytest.approx(expected)
