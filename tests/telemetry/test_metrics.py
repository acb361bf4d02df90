from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import ServiceName
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.request_record import Outcome, RequestRecord
from tests.telemetry.record_builder import make_record

CHAT = {"pool": "pool", "service": "chat", "priority": "0"}
OTHER = {"pool": "", "service": "other", "priority": ""}


class Page:
    """What a scrape says after these records."""

    def __init__(self, *records: RequestRecord, services: Iterable[str] = ("chat",)) -> None:
        self.registry = CollectorRegistry()
        self.ended = EndedRequests(wall_clock=lambda: 0.0)
        self.metrics = RequestMetrics(services=map(ServiceName, services), ended=self.ended)
        self.registry.register(self.metrics)
        for record in records:
            self.ended.request_ended(record)

    def value(self, name: str, labels: dict[str, str] = CHAT, **more: str) -> float | None:
        return self.registry.get_sample_value(f"llm_gateway_{name}", labels | more)


def test_requests_are_counted_by_outcome() -> None:
    page = Page(make_record(), make_record(), make_record(outcome=Outcome.CANCELLED, status=499))
    assert page.value("requests_total", outcome="ok") == 2
    assert page.value("requests_total", outcome="cancelled") == 1


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.EXPIRED])
def test_refusals_are_counted_by_reason(outcome: Outcome) -> None:
    page = Page(make_record(outcome=outcome, reason=RefusalReason.NO_CAPACITY))
    assert page.value("refusals_total", reason="no_capacity") == 1
    assert page.value("failures_total", reason="no_capacity") is None


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.STREAM_ERROR])
def test_failures_are_counted_by_kind(outcome: Outcome) -> None:
    page = Page(make_record(outcome=outcome, reason=FailureKind.RESET))
    assert page.value("failures_total", reason="reset") == 1
    assert page.value("refusals_total", reason="reset") is None


def test_what_failed_before_a_retry_that_succeeded_is_no_failure() -> None:
    page = Page(make_record(attempts=2, reason=FailureKind.CONNECT))
    assert page.value("failures_total", reason="connect") is None
    assert page.value("retries_total") == 1


def test_requests_taken_over_from_another_service_are_counted() -> None:
    page = Page(make_record(fallback_for="large"), make_record())
    assert page.value("fallbacks_total") == 1


def test_attempts_after_the_first_are_retries() -> None:
    page = Page(make_record(attempts=3), make_record(attempts=1), make_record(attempts=0))
    assert page.value("retries_total") == 2


def test_a_continuation_counts_that_no_server_took() -> None:
    assert Page(make_record(attempts=1, continuations=1)).value("continuations_total") == 1


def test_tokens_are_summed() -> None:
    page = Page(make_record(), make_record(prompt_tokens=None, completion_tokens=5))
    assert page.value("prompt_tokens_total") == 100
    assert page.value("cached_prompt_tokens_total") == 128
    assert page.value("completion_tokens_total") == 26


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("e2e_latency_seconds", 2.4),
        ("time_to_first_token_seconds", 0.4),
        ("time_per_output_token_seconds", 0.1),
        ("normalized_time_per_output_token_seconds", 2.4 / 21),
        ("queue_wait_seconds", 0.1),
        ("overhead_seconds", 0.0002),
        ("ttft_forecast_error_ratio", 0.1),
        ("tpot_forecast_error_ratio", 0.2),
    ],
)
def test_a_complete_stream_is_in_every_histogram(name: str, total: float) -> None:
    page = Page(make_record())
    assert page.value(f"{name}_count") == 1
    assert page.value(f"{name}_sum") == pytest.approx(total)


def test_an_answer_in_one_piece_has_no_first_token_to_observe() -> None:
    page = Page(make_record(streamed=False, ttft_s=None, dispatch_ttft_s=None))
    assert page.value("e2e_latency_seconds_count") == 1
    assert page.value("normalized_time_per_output_token_seconds_count") == 1
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds"):
        assert page.value(f"{name}_count") == 0
    for name in ("ttft_forecast_error_ratio", "tpot_forecast_error_ratio"):
        assert page.value(f"{name}_count") == 0


def test_an_answer_without_a_forecast_has_no_forecast_error() -> None:
    page = Page(make_record(forecast_ttft_s=None, forecast_tpot_s=None))
    assert page.value("ttft_forecast_error_ratio_count") == 0
    assert page.value("tpot_forecast_error_ratio_count") == 0


def test_times_too_short_to_measure_have_no_forecast_error() -> None:
    page = Page(make_record(dispatch_ttft_s=0.0, ttft_s=0.4, e2e_s=0.4))
    assert page.value("ttft_forecast_error_ratio_count") == 0
    assert page.value("tpot_forecast_error_ratio_count") == 0


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.OK])
def test_only_complete_answers_count_as_latency(outcome: Outcome) -> None:
    page = Page(make_record(outcome=outcome))
    assert page.value("e2e_latency_seconds_count") == 0
    assert page.value("time_to_first_token_seconds_count") == 0
    assert page.value("tpot_forecast_error_ratio_count") == 0


def test_a_request_that_was_never_dispatched_did_not_wait_for_one() -> None:
    page = Page(make_record(outcome=Outcome.EXPIRED, attempts=0, overhead_s=None))
    assert page.value("queue_wait_seconds_count") == 0
    assert page.value("overhead_seconds_count") == 0


def test_requests_without_a_configured_service_share_one_series() -> None:
    page = Page(
        make_record(service=None, pool=None, priority=None, outcome=Outcome.CLIENT_ERROR),
        *(make_record(service=ServiceName(f"x{n}"), priority=n) for n in range(100)),
    )
    assert page.value("requests_total", OTHER, outcome="client_error") == 1
    assert page.value("requests_total", OTHER, outcome="ok") == 100
    assert generate_latest(page.registry).count(b"retries_total{") == 1


def test_the_default_service_has_a_series_of_its_own() -> None:
    page = Page(make_record(service=ServiceName("default"), priority=-1))
    labels = {"pool": "pool", "service": "default", "priority": "-1"}
    assert page.value("requests_total", labels, outcome="ok") == 1


def test_services_of_a_reload_get_series_and_removed_ones_keep_what_they_had() -> None:
    page = Page(make_record())
    page.metrics.set_services([ServiceName("batch")])
    page.ended.request_ended(make_record())
    page.ended.request_ended(make_record(service=ServiceName("batch"), priority=-1))
    batch = {"pool": "pool", "service": "batch", "priority": "-1"}
    assert page.value("requests_total", outcome="ok") == 1
    assert page.value("requests_total", OTHER, outcome="ok") == 1
    assert page.value("requests_total", batch, outcome="ok") == 1


def test_an_answer_whose_tokens_nobody_counted_still_has_its_latency() -> None:
    page = Page(make_record(completion_tokens=None, prompt_tokens=None, cached_tokens=None))
    assert page.value("time_to_first_token_seconds_count") == 1
    assert page.value("normalized_time_per_output_token_seconds_count") == 0
    assert page.value("time_per_output_token_seconds_count") == 0
    assert page.value("completion_tokens_total") == 0
