"""Lengths at the very edge; the texts of refusals are compared in test_http_server."""

import pytest

from gateway.simulator.api_errors import ApiError
from gateway.simulator.context_limits import ContextLimits

LIMITS = ContextLimits(100)


def test_a_prompt_may_leave_room_for_one_token() -> None:
    assert LIMITS.room([5] * 99) == 1
    with pytest.raises(ApiError, match="exceeds this limit"):
        LIMITS.room([5] * 100)


def test_an_answer_may_fill_the_room_exactly() -> None:
    LIMITS.check_fit(60, 40, 40)
    with pytest.raises(ApiError, match="requested 41 output tokens"):
        LIMITS.check_fit(60, 40, 41)


@pytest.mark.parametrize("limit", [0, -1, 101, "5", 1.5, True])
def test_a_limit_that_no_answer_could_have_is_refused(limit: object) -> None:
    with pytest.raises(ApiError):
        LIMITS.check_answer(limit)


def test_a_text_may_have_thirteen_characters_per_token() -> None:
    LIMITS.check_characters(1300)
    with pytest.raises(ApiError, match="1301 characters"):
        LIMITS.check_characters(1301)
