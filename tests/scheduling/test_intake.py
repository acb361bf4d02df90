"""What is known of a request before it is served, as its forecast shows."""

from gateway.scheduling import events as ev
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.model import BackendId, Forecast, InferenceRequest
from tests.builders import make_policy, make_request
from tests.scheduling.checked_scheduler import CheckedScheduler

A = BackendId("a")


def pool() -> CheckedScheduler:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    return checked


def forecast(
    checked: CheckedScheduler, request: InferenceRequest, *chunks: tuple[BackendId, float]
) -> Forecast:
    (decision,) = checked.feed(ev.RequestArrived(request, chunks))
    assert isinstance(decision, Dispatch)
    return decision.forecast


def long_prompt(request_id: str, *prefix_blocks: int) -> InferenceRequest:
    """8,000 tokens of 4 bytes; a block of 512 bytes is 128 of them."""
    return make_request(
        request_id, prompt_tokens=None, prompt_bytes=32_000, prefix_blocks=prefix_blocks
    )


def test_a_block_of_a_prompt_is_worth_its_share_of_the_tokens() -> None:
    checked = pool()
    blocks = tuple(range(60))
    forecast(checked, long_prompt("r1", *blocks))
    checked.finish("r1")
    checked.now += 1.0
    cached = forecast(checked, long_prompt("r2", *blocks))
    checked.finish("r2")
    checked.now += 1.0
    short = forecast(checked, make_request("r3", prompt_tokens=8_000 - 60 * 128))
    checked.finish("r3")
    checked.now += 1.0
    unlike = forecast(checked, long_prompt("r4", *range(100, 160)))
    assert cached.ttft_s == short.ttft_s < 0.2 * unlike.ttft_s


def test_a_prompt_without_bytes_is_taken_without_its_blocks() -> None:
    checked = pool()
    empty = make_request("r1", prompt_tokens=None, prompt_bytes=0, prefix_blocks=(1,))
    assert forecast(checked, empty).ttft_s > 0.0


def test_the_newest_chunk_that_an_arrival_brings_tells_how_far_the_step_is() -> None:
    forecasts = []
    for age_s in (0.001, 0.008):
        checked = pool()
        checked.now += forecast(checked, make_request("running")).ttft_s
        checked.first_token("running")
        checked.now += 0.1
        chunk = (A, checked.now - age_s)
        forecasts.append(forecast(checked, make_request("r1"), chunk).ttft_s)
    assert forecasts[1] < forecasts[0]


def test_a_chunk_of_a_server_that_is_not_known_is_no_matter() -> None:
    checked = pool()
    assert forecast(checked, make_request("r1"), (BackendId("unheard-of"), 5.0)).ttft_s > 0.0
