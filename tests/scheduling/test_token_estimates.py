import pytest

from gateway.scheduling.model import ServiceName, TokenUsage
from gateway.scheduling.token_estimates import (
    BYTES_PER_TOKEN_PRIOR,
    OUTPUT_TOKENS_PRIOR,
    TokenEstimates,
)
from tests.builders import make_request

CHAT = ServiceName("default")


@pytest.fixture
def estimates() -> TokenEstimates:
    return TokenEstimates()


def test_token_ids_are_counted_exactly(estimates: TokenEstimates) -> None:
    assert estimates.prompt_tokens(make_request(prompt_tokens=7, prompt_bytes=4_000)) == 7


def test_a_prompt_has_at_least_one_token(estimates: TokenEstimates) -> None:
    assert estimates.prompt_tokens(make_request(prompt_tokens=0)) == 1
    assert estimates.prompt_tokens(make_request(prompt_tokens=None, prompt_bytes=0)) == 1


def test_text_is_estimated_from_its_bytes(estimates: TokenEstimates) -> None:
    request = make_request(prompt_tokens=None, prompt_bytes=400)
    assert estimates.prompt_tokens(request) == 400 / BYTES_PER_TOKEN_PRIOR


def test_the_ratio_of_bytes_is_learned_from_usage(estimates: TokenEstimates) -> None:
    request = make_request(prompt_tokens=None, prompt_bytes=400)
    for _ in range(2_000):
        estimates.learn(request, TokenUsage(prompt_tokens=200))
    assert estimates.prompt_tokens(request) == 200


def test_prompts_of_known_length_or_without_text_teach_no_ratio(estimates: TokenEstimates) -> None:
    for request in (
        make_request(prompt_tokens=5, prompt_bytes=400),
        make_request(prompt_tokens=None, prompt_bytes=0),
    ):
        estimates.learn(request, TokenUsage(prompt_tokens=1))
    text = make_request(prompt_tokens=None, prompt_bytes=400)
    assert estimates.prompt_tokens(text) == 400 / BYTES_PER_TOKEN_PRIOR


def test_the_answers_length_is_the_services_mean(estimates: TokenEstimates) -> None:
    request = make_request(max_tokens=None)
    assert estimates.output_tokens(request) == OUTPUT_TOKENS_PRIOR
    for _ in range(2_000):
        estimates.learn(request, TokenUsage(completion_tokens=20))
    assert estimates.output_tokens(request) == pytest.approx(20, abs=15)
    assert estimates.output_tokens(request) < OUTPUT_TOKENS_PRIOR / 2


def test_each_service_learns_alone(estimates: TokenEstimates) -> None:
    for _ in range(2_000):
        estimates.learn(make_request(service="short"), TokenUsage(completion_tokens=2))
    other = make_request(service="other", max_tokens=None)
    assert estimates.output_tokens(other) == OUTPUT_TOKENS_PRIOR


def test_max_tokens_caps_the_expectation(estimates: TokenEstimates) -> None:
    assert estimates.output_tokens(make_request(max_tokens=16)) == 16
    assert estimates.output_tokens(make_request(max_tokens=0)) == 1


def test_every_choice_is_expected_to_have_an_answer(estimates: TokenEstimates) -> None:
    assert estimates.output_tokens(make_request(max_tokens=16, choices=3)) == 48


def test_what_does_not_generate_has_no_output(estimates: TokenEstimates) -> None:
    request = make_request(generates=False)
    estimates.learn(request, TokenUsage(completion_tokens=9))
    assert estimates.output_tokens(request) == 0
    assert estimates.output_tokens(make_request(max_tokens=None)) == OUTPUT_TOKENS_PRIOR


def test_the_answers_length_is_learned_per_choice(estimates: TokenEstimates) -> None:
    for _ in range(2_000):
        estimates.learn(make_request(choices=4), TokenUsage(completion_tokens=40))
    assert estimates.output_tokens(make_request(max_tokens=None)) == 10


def test_an_event_is_about_a_token_until_usage_tells(estimates: TokenEstimates) -> None:
    assert estimates.tokens_of_events(CHAT, 10) == 10
    for _ in range(2_000):
        estimates.learn(make_request(), TokenUsage(completion_tokens=300, events=100))
    assert estimates.tokens_of_events(CHAT, 10) == 30


def test_usage_without_counts_teaches_nothing(estimates: TokenEstimates) -> None:
    estimates.learn(make_request(prompt_tokens=None), TokenUsage(events=50))
    assert estimates.tokens_of_events(CHAT, 10) == 10
    assert estimates.output_tokens(make_request(max_tokens=None)) == OUTPUT_TOKENS_PRIOR


def test_an_answer_that_was_not_streamed_teaches_no_event_ratio(estimates: TokenEstimates) -> None:
    for _ in range(100):
        estimates.learn(make_request(), TokenUsage(completion_tokens=500, events=0))
    assert estimates.tokens_of_events(CHAT, 10) == 10


def test_a_first_sample_moves_the_prior_only_a_little(estimates: TokenEstimates) -> None:
    estimates.learn(make_request(), TokenUsage(completion_tokens=20_000))
    assert OUTPUT_TOKENS_PRIOR < estimates.output_tokens(make_request(max_tokens=None)) < 2_500
