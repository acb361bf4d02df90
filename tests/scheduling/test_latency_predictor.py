"""The forecast as a function of load; the coefficients are the prior's business."""

import pytest

from gateway.scheduling.backend_ledger import BackendLedger, BackendState
from gateway.scheduling.latency_predictor import LatencyPredictor, StepTimeModel
from gateway.scheduling.model import BackendId, Forecast
from tests.builders import make_tracked, serving


def busy(*, decoding: int = 0, prefilling: int = 0, adapter: str | None = None) -> BackendState:
    """A server with so many requests in each state, of 500 prompt tokens each."""
    ledger = BackendLedger(default_max_loras=4)
    backend = ledger.join(BackendId("a"), serving("lora-a", "lora-b"))
    for number in range(decoding + prefilling):
        tracked = make_tracked(f"r{number}", prompt_tokens=500, target=adapter or "base")
        ledger.reserve(backend, tracked, now=0.0)
        if number < decoding:
            ledger.end_prefill(backend, tracked)
    backend.last_chunk_at = 0.0
    return backend


def forecast(
    backend: BackendState,
    *,
    prompt_tokens: int = 200,
    uncached_tokens: int | None = None,
    output_tokens: int = 100,
    adapter: str | None = None,
    now: float = 0.0,
) -> Forecast:
    return LatencyPredictor(prior=StepTimeModel()).forecast(
        backend,
        prompt_tokens=prompt_tokens,
        uncached_tokens=prompt_tokens if uncached_tokens is None else uncached_tokens,
        output_tokens=output_tokens,
        adapter=adapter,
        now=now,
    )


@pytest.mark.parametrize(("less", "more"), [(0, 1), (1, 8), (8, 64), (64, 256)])
def test_more_streams_mean_a_later_first_token_and_slower_tokens(less: int, more: int) -> None:
    few, many = forecast(busy(decoding=less)), forecast(busy(decoding=more))
    assert many.ttft_s > few.ttft_s
    assert many.tpot_s > few.tpot_s


def test_prompts_before_it_delay_the_first_token_and_disturb_the_stream() -> None:
    alone, behind = forecast(busy(decoding=1)), forecast(busy(decoding=1, prefilling=4))
    assert behind.ttft_s > alone.ttft_s
    assert behind.tpot_s > alone.tpot_s


def test_traffic_of_others_slows_a_server_down() -> None:
    backend = busy(decoding=1)
    before = forecast(backend)
    backend.external_running = 50.0
    assert forecast(backend).tpot_s > before.tpot_s


def test_a_longer_prompt_means_a_later_first_token_and_slower_tokens() -> None:
    short, long = forecast(busy(), prompt_tokens=10), forecast(busy(), prompt_tokens=10_000)
    assert long.ttft_s > short.ttft_s
    assert long.tpot_s > short.tpot_s


def test_only_uncached_tokens_need_a_prefill() -> None:
    cold = forecast(busy(), prompt_tokens=4_000)
    warm = forecast(busy(), prompt_tokens=4_000, uncached_tokens=16)
    assert warm.ttft_s < cold.ttft_s
    assert warm.tpot_s == cold.tpot_s


def test_an_adapter_that_is_not_resident_delays_the_first_token() -> None:
    backend = busy(decoding=1, adapter="lora-a")
    resident, cold = forecast(backend, adapter="lora-a"), forecast(backend, adapter="lora-b")
    assert cold.ttft_s > resident.ttft_s
    assert cold.tpot_s == resident.tpot_s


def test_an_adapter_in_the_batch_slows_every_step() -> None:
    assert forecast(busy(), adapter="lora-a").tpot_s > forecast(busy()).tpot_s
    assert forecast(busy(decoding=1, adapter="lora-a")).tpot_s > forecast(busy(decoding=1)).tpot_s


def test_the_first_token_waits_for_the_end_of_the_current_step() -> None:
    backend = busy(decoding=1)
    early, late = forecast(backend, now=0.001), forecast(backend, now=0.010)
    assert late.ttft_s < early.ttft_s
    assert late.tpot_s == early.tpot_s


def test_an_unknown_phase_counts_as_half_a_step() -> None:
    backend = busy(decoding=1)
    just_begun, just_over = forecast(backend, now=0.0), forecast(backend, now=0.0109)
    backend.last_chunk_at = None
    assert just_over.ttft_s < forecast(backend).ttft_s < just_begun.ttft_s


def test_the_90th_percentile_is_above_the_mean() -> None:
    found = forecast(busy(decoding=4))
    assert found.ttft_p90_s > found.ttft_s
    assert found.tpot_p90_s > found.tpot_s


def test_a_request_without_output_has_a_forecast() -> None:
    assert forecast(busy(prefilling=2), output_tokens=0).ttft_s > 0.0
