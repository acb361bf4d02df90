import pytest

from gateway.scheduling.bounds import set_bounds
from gateway.scheduling.model import LatencyObjective
from tests.builders import make_service, make_tracked

DEFAULT = LatencyObjective(ttft_s=10.0, tpot_s=0.2)
INFINITE = float("inf")


def bounds(
    objective: LatencyObjective | None,
    *,
    default: LatencyObjective = DEFAULT,
    output_tokens: int = 100,
    choices: int = 1,
) -> tuple[float, float | None]:
    """(TTFT, TPOT) that a request is steered by."""
    tracked = make_tracked(
        service=make_service(objective=objective), output_tokens=output_tokens, choices=choices
    )
    set_bounds(tracked, default)
    return tracked.ttft_bound_s, tracked.tpot_bound_s


def test_an_objective_of_its_own_goes_before_the_default() -> None:
    assert bounds(LatencyObjective(ttft_s=1.0, tpot_s=0.05)) == (1.0, 0.05)


def test_a_service_without_an_objective_has_the_default() -> None:
    assert bounds(None) == (10.0, 0.2)


def test_what_an_objective_leaves_open_comes_from_the_default() -> None:
    assert bounds(LatencyObjective(ttft_s=1.0)) == (1.0, 0.2)
    assert bounds(LatencyObjective(tpot_s=0.05)) == (10.0, 0.05)


def test_without_any_bound_nothing_is_bound() -> None:
    nothing = LatencyObjective()
    assert bounds(None, default=nothing) == (INFINITE, None)
    assert bounds(LatencyObjective(tpot_s=0.05), default=nothing) == (INFINITE, 0.05)


def test_a_bound_on_the_whole_answer_is_split_between_first_token_and_the_rest() -> None:
    ttft_s, tpot_s = bounds(LatencyObjective(ntpot_s=0.04), output_tokens=100)
    assert ttft_s == pytest.approx(1.0)
    assert tpot_s == pytest.approx(0.03)
    assert tpot_s is not None
    assert ttft_s + 100 * tpot_s == pytest.approx(0.04 * 100), "the split uses up the whole"


def test_the_split_is_by_the_tokens_of_one_choice() -> None:
    ttft_s, _ = bounds(LatencyObjective(ntpot_s=0.04), output_tokens=100, choices=4)
    assert ttft_s == pytest.approx(0.25)


def test_an_answer_of_no_tokens_has_a_bound_of_one() -> None:
    ttft_s, _ = bounds(LatencyObjective(ntpot_s=0.04), output_tokens=0)
    assert ttft_s == pytest.approx(0.01)


def test_of_several_bounds_the_strictest_holds() -> None:
    strict_parts = LatencyObjective(ttft_s=0.1, tpot_s=0.01, ntpot_s=0.04)
    strict_whole = LatencyObjective(ttft_s=5.0, tpot_s=0.5, ntpot_s=0.04)
    assert bounds(strict_parts) == (0.1, 0.01)
    assert bounds(strict_whole) == pytest.approx((1.0, 0.03))
