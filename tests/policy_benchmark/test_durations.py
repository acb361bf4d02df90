import pytest

from gateway.policy_benchmark.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("1.5 s", 1.5), ("5min", 300.0), ("1h", 3600.0)]
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


def test_what_is_no_text_is_left_as_it_is() -> None:
    assert parse_duration(2.5) == 2.5


@pytest.mark.parametrize("text", ["", "5", "fast", "5 days", "-1s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)
