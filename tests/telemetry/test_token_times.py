"""Durations as requests are judged by them."""

import pytest

from gateway.telemetry.token_times import to_microseconds


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, 0.0),
        (0.00009999999997489795, 0.0001),
        (1.2345678, 1.234568),
        (86_400.0000004, 86_400.0),
    ],
)
def test_durations_are_told_to_the_microsecond(seconds: float, told: float) -> None:
    assert to_microseconds(seconds) == told
