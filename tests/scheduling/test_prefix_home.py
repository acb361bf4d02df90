"""Requests whose prompt one server holds, while others are open but near their limit.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

from gateway.scheduling.model import CRITICAL, LatencyObjective
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.scheduler_scenes import dispatched

NEAR_ITS_LIMIT, FAR_FROM_IT = 0.0145, 0.03
"""TPOT bounds: before the first sample a server is believed to take 12 ms for a step."""


def scene(*, tpot_s: float = NEAR_ITS_LIMIT, priority: int = CRITICAL) -> CheckedScheduler:
    """Server a is full and holds the prompt of `asking`; b runs another request, a third fits."""
    objective = LatencyObjective(ttft_s=1.0, tpot_s=tpot_s)
    chat = make_service("chat", priority=priority, objective=objective)
    checked = CheckedScheduler(make_policy(chat, make_service("batch"), slots=2))
    checked.join("a")
    for request_id in ("first", "second"):
        asking(checked, request_id)
        checked.first_token(request_id)
    checked.join("b")
    other(checked, "other")
    checked.first_token("other")
    return checked


def asking(checked: CheckedScheduler, request_id: str, *, known_tokens: int = 2_000) -> object:
    """A prompt of 2,000 tokens, so many of which are the same in all."""
    blocks = known_tokens // 100
    own = (hash(request_id) + number for number in range(20 - blocks))
    request = make_request(
        request_id,
        service="chat",
        prompt_tokens=2_000,
        prompt_bytes=20 * 512,
        prefix_blocks=(*range(blocks), *own),
    )
    return dispatched(checked.arrive(request))


def other(checked: CheckedScheduler, request_id: str, *, service: str = "chat") -> object:
    return dispatched(checked.arrive(make_request(request_id, service=service)))


def test_a_request_waits_for_the_server_that_holds_its_prompt() -> None:
    checked = scene()
    assert asking(checked, "third") == []
    assert dispatched(checked.finish("first")) == [("third", "a")]


def test_it_goes_elsewhere_while_there_is_room() -> None:
    assert asking(scene(tpot_s=FAR_FROM_IT), "third") == [("third", "b")]


def test_a_prompt_that_is_mostly_its_own_goes_wherever_a_server_is_open() -> None:
    assert asking(scene(), "third", known_tokens=500) == [("third", "b")]


def test_it_does_not_wait_for_one_of_several_that_hold_its_prompt() -> None:
    checked = scene()
    checked.join("c")
    asking(checked, "on-c")
    checked.first_token("on-c")
    assert asking(checked, "third") == [("third", "c")]


def test_those_that_wait_for_it_hold_up_nobody_else() -> None:
    checked = scene()
    asking(checked, "third")
    assert other(checked, "short") == [("short", "b")]


def test_one_after_another_gets_the_server_that_holds_its_prompt() -> None:
    checked = scene()
    asking(checked, "third")
    asking(checked, "fourth")
    assert dispatched(checked.finish("second")) == [("third", "a")]
    checked.first_token("third")
    assert dispatched(checked.finish("third")) == [("fourth", "a")]


def test_what_critical_ones_leave_to_others_is_not_for_non_critical_ones() -> None:
    checked = scene()
    asking(checked, "third")
    assert other(checked, "batch", service="batch") == []
    assert dispatched(checked.finish("first")) == [("third", "a"), ("batch", "b")]


def test_a_server_that_leaves_is_waited_for_no_longer() -> None:
    checked = scene()
    asking(checked, "third")
    assert dispatched(checked.leave("a")) == [("third", "b")]


def test_a_server_that_drains_is_waited_for_no_longer() -> None:
    checked = scene()
    asking(checked, "third")
    assert dispatched(checked.drain("a")) == [("third", "b")]


def test_a_server_that_is_ejected_is_waited_for_no_longer() -> None:
    checked = scene()
    for number in range(5):
        asking(checked, f"waiting-{number}")
    decisions = checked.fail("first", retryable=False)
    for number in range(4):
        assert dispatched(decisions) == [(f"waiting-{number}", "a")]
        decisions = checked.fail(f"waiting-{number}", retryable=False)
    assert dispatched(decisions) == [("waiting-4", "b")]
