"""The forecast as a function of load, before anything was learned."""

import pytest

from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import BackendId
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.step_time import StepTimePrior
from tests.builders import BASE, make_ledger, make_tracked, serving


class Server:
    """A server with a predictor that saw everything that was sent there, of 500 tokens each."""

    def __init__(
        self, *, decoding: int = 0, prefilling: int = 0, adapter: str | None = None
    ) -> None:
        ledger = make_ledger()
        self.predictor = LatencyPredictor(prior=StepTimePrior())
        self.backend: BackendState = ledger.join(BackendId("a"), serving("lora-a", "lora-b"))
        for number in range(decoding + prefilling):
            tracked = make_tracked(f"r{number}", prompt_tokens=500, target=adapter or BASE)
            self.predictor.dispatched(self.backend, tracked, now=0.0)
            ledger.reserve(self.backend, tracked, now=0.0)
            if number < decoding:
                ledger.end_prefill(self.backend, tracked)
                self.predictor.first_token(self.backend, tracked, now=0.0)


def forecast(
    server: Server,
    *,
    prompt_tokens: int = 200,
    output_tokens: int = 100,
    adapter: str | None = None,
    now: float = 0.0,
) -> Prediction:
    tracked = make_tracked(
        "asked", prompt_tokens=prompt_tokens, output_tokens=output_tokens, target=adapter or BASE
    )
    return server.predictor.predict(server.backend, tracked, now=now)


@pytest.mark.parametrize(("less", "more"), [(0, 1), (1, 8), (8, 64), (64, 256)])
def test_more_streams_mean_a_later_first_token_and_slower_tokens(less: int, more: int) -> None:
    few, many = forecast(Server(decoding=less)), forecast(Server(decoding=more))
    assert many.ttft_s > few.ttft_s
    assert many.tpot_s > few.tpot_s


def test_prompts_before_it_delay_the_first_token_and_disturb_the_stream() -> None:
    alone, behind = forecast(Server(decoding=1)), forecast(Server(decoding=1, prefilling=4))
    assert behind.ttft_s > alone.ttft_s
    assert behind.tpot_s > alone.tpot_s


def test_traffic_of_others_slows_a_server_down() -> None:
    server = Server(decoding=1)
    before = forecast(server)
    server.backend.external_running = 50.0
    assert forecast(server).tpot_s > before.tpot_s


def test_a_longer_prompt_means_a_later_first_token_and_slower_tokens() -> None:
    short, long = forecast(Server(), prompt_tokens=10), forecast(Server(), prompt_tokens=10_000)
    assert long.ttft_s > short.ttft_s
    assert long.tpot_s > short.tpot_s


def test_an_adapter_that_is_not_resident_delays_the_first_token() -> None:
    server = Server(decoding=1, adapter="lora-a")
    resident, cold = forecast(server, adapter="lora-a"), forecast(server, adapter="lora-b")
    assert cold.ttft_s > resident.ttft_s
    assert cold.tpot_s == resident.tpot_s


def test_the_first_token_waits_for_the_end_of_the_current_step() -> None:
    server = Server(decoding=1)
    early, late = forecast(server, now=0.001), forecast(server, now=0.008)
    assert late.ttft_s < early.ttft_s


def test_the_90th_percentile_is_above_the_mean() -> None:
    found = forecast(Server(decoding=4))
    assert found.ttft_p90_s > found.ttft_s
    assert found.tpot_p90_s > found.tpot_s


def test_a_request_without_output_has_a_forecast() -> None:
    assert forecast(Server(prefilling=2), output_tokens=0).ttft_s > 0.0
