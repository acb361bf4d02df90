import pytest

from gateway.scheduling.decisions import RefusalReason
from gateway.telemetry.request_record import Outcome, outcome_of_refusal
from tests.telemetry.record_builder import make_record


def test_tpot_is_the_time_after_the_first_token_per_further_token() -> None:
    assert make_record(e2e_s=2.4, ttft_s=0.4, completion_tokens=21).tpot_s == pytest.approx(0.1)


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_without_a_second_token_there_is_no_tpot(tokens: int | None) -> None:
    assert make_record(completion_tokens=tokens).tpot_s is None


def test_an_answer_in_one_piece_has_no_tpot() -> None:
    assert make_record(streamed=False, ttft_s=None).tpot_s is None


def test_ntpot_is_the_whole_time_per_token() -> None:
    assert make_record(e2e_s=2.4, completion_tokens=24).ntpot_s == pytest.approx(0.1)


@pytest.mark.parametrize("tokens", [None, 0])
def test_without_tokens_there_is_no_ntpot(tokens: int | None) -> None:
    assert make_record(completion_tokens=tokens).ntpot_s is None


@pytest.mark.parametrize("reason", RefusalReason)
def test_every_refusal_has_an_outcome(reason: RefusalReason) -> None:
    assert outcome_of_refusal(reason) in {
        Outcome.CLIENT_ERROR,
        Outcome.REFUSED,
        Outcome.EXPIRED,
        Outcome.FAILED,
    }


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (RefusalReason.UNKNOWN_MODEL, Outcome.CLIENT_ERROR),
        (RefusalReason.NO_CAPACITY, Outcome.REFUSED),
        (RefusalReason.QUEUE_TIMEOUT, Outcome.EXPIRED),
        (RefusalReason.ATTEMPTS_EXHAUSTED, Outcome.FAILED),
    ],
)
def test_a_refusal_is_told_apart_from_waiting_in_vain(
    reason: RefusalReason, outcome: Outcome
) -> None:
    assert outcome_of_refusal(reason) is outcome
