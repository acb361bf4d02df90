"""Forecasts as a function of load, and what is learned from how they turn out."""

import pytest

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import BackendId, BackendLoad, RequestId
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.step_time import StepTimePrior
from tests.builders import BASE, make_ledger, make_tracked, serving


class Server:
    """A server with a predictor that saw everything that was sent there, of 500 tokens each."""

    def __init__(
        self, *, decoding: int = 0, prefilling: int = 0, adapter: str | None = None
    ) -> None:
        self.ledger = ledger = make_ledger()
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
    for number in range(20):
        server.ledger.report(server.backend, BackendLoad(running=50), taken_at=number)
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


# -- what was sent before ---------------------------------------------------------------------


def test_a_prompt_whose_beginning_is_cached_has_an_earlier_first_token() -> None:
    ledger, predictor = make_ledger(), LatencyPredictor(prior=StepTimePrior())
    backend = ledger.join(BackendId("a"), serving())
    blocks = tuple(range(10))
    asked = make_tracked("asked", prompt_tokens=4_000, prefix_blocks=blocks)
    cold = predictor.predict(backend, asked, now=0.0)
    ledger.reserve(backend, make_tracked("before", prefix_blocks=blocks[:8]), now=0.0)
    ledger.end_prefill(backend, backend.in_flight[RequestId("before")])
    cached = predictor.predict(backend, asked, now=0.0)
    assert (cold.uncached_tokens, cached.uncached_tokens) == (4_000, 800)
    assert cached.own_prefill_s == pytest.approx(cold.own_prefill_s / 5)
    assert cached.ttft_s < 0.5 * cold.ttft_s


def test_a_request_that_leaves_before_its_first_token_delays_nobody() -> None:
    server = Server(decoding=1)
    before = forecast(server)
    waiting = make_tracked("waiting", prompt_tokens=5_000)
    server.predictor.dispatched(server.backend, waiting, now=0.0)
    assert forecast(server).ttft_s > 2 * before.ttft_s
    server.predictor.withdrawn(server.backend, waiting)
    assert forecast(server).ttft_s == before.ttft_s


def test_a_chunk_brings_the_first_token_nearer() -> None:
    server = Server(decoding=1)
    waiting = make_tracked("waiting", prompt_tokens=5_000)
    server.predictor.dispatched(server.backend, waiting, now=0.0)
    before = forecast(server, now=0.2)
    server.predictor.chunk_seen(server.backend, 0.199)
    assert forecast(server, now=0.2).ttft_s < before.ttft_s


def test_a_prefill_that_takes_longer_than_forecast_is_about_to_end() -> None:
    server = Server(prefilling=1)
    assert forecast(server, now=0.0).stepping_s > 0.0
    assert forecast(server, now=5.0).stepping_s <= 0.0


# -- learning ---------------------------------------------------------------------------------


def teach_pace(server: Server, *, step_s: float, reports: int) -> None:
    """Reports, four a second, of the streams that run on the server."""
    streams = server.backend.decoding
    for number in range(1, reports + 1):
        server.predictor.progressed(
            server.backend,
            streams=streams,
            tokens=streams * 0.25 / step_s,
            last_chunk_at=number / 4,
        )


def teach_first_tokens(server: Server, *, factor: float, count: int) -> None:
    """First tokens that take so many times as long as the prior has it."""
    alone = LatencyPredictor(prior=StepTimePrior())
    for number in range(count):
        tracked = make_tracked(f"t{number}", prompt_tokens=100 + 300 * (number % 10))
        tracked.uncached_tokens = tracked.prompt_tokens
        expected = alone.predict(Server().backend, tracked, now=0.0)
        tracked.prediction = server.predictor.predict(server.backend, tracked, now=0.0)
        tracked.dispatched_at = 10.0
        server.predictor.first_token(server.backend, tracked, now=10.0 + factor * expected.ttft_s)


def test_the_pace_of_streams_is_learned() -> None:
    server = Server(decoding=8)
    teach_pace(server, step_s=0.05, reports=80)
    assert forecast(server).tpot_s == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(
    ("streams", "tokens", "gap_s"), [(0, 0.0, 0.25), (8, 4.0, 0.25), (8, 40.0, 2.5), (8, 40.0, 0.0)]
)
def test_reports_that_show_no_pace_teach_none(streams: int, tokens: float, gap_s: float) -> None:
    """No stream, hardly a token, an idle time in between, no new chunk."""
    server = Server(decoding=8)
    before = forecast(server)
    for number in range(50):
        server.predictor.progressed(
            server.backend, streams=streams, tokens=tokens, last_chunk_at=100.0 + number * gap_s
        )
    assert forecast(server).tpot_s == before.tpot_s


def test_prefills_between_reports_are_not_taken_for_slow_decoding() -> None:
    calm, disturbed = Server(decoding=8), Server(decoding=8)
    for number in range(1, 81):
        for server in (calm, disturbed):
            prefilled_s = 0.0
            if server is disturbed:  # 2,000 tokens between two reports, 40 us each
                server.predictor.timing(server.backend.id).queue.taken += 2_000
                prefilled_s = 0.08
            server.predictor.progressed(
                server.backend,
                streams=8,
                tokens=8 * (0.25 - prefilled_s) / 0.02,
                last_chunk_at=number / 4,
            )
    disturbed_s = disturbed.predictor.timing(disturbed.backend.id).decode.predict(8, 4_000)
    calm_s = calm.predictor.timing(calm.backend.id).decode.predict(8, 4_000)
    assert disturbed_s == pytest.approx(calm_s, rel=0.05)


def test_first_tokens_are_learned() -> None:
    server, prior = Server(), forecast(Server(), prompt_tokens=1_000)
    teach_first_tokens(server, factor=3.0, count=200)
    assert forecast(server, prompt_tokens=1_000).ttft_s == pytest.approx(3 * prior.ttft_s, rel=0.15)


def test_the_time_to_load_an_adapter_is_learned() -> None:
    server = Server(decoding=1, adapter="lora-a")
    for now in range(60):
        tracked = make_tracked("cold", arrived_at=float(now))
        tracked.prediction = forecast(server, adapter="lora-b", now=now)
        warm = forecast(server, adapter="lora-a", now=now)
        server.predictor.first_token(server.backend, tracked, now=now + warm.raw_ttft_s + 0.8)
    loaded, warm = (forecast(server, adapter=name, now=60) for name in ("lora-b", "lora-a"))
    assert loaded.raw_ttft_s - warm.raw_ttft_s == pytest.approx(0.8, rel=0.05)


def test_a_wait_given_up_after_the_forecast_teaches_that_it_was_too_short() -> None:
    server = Server(decoding=1)
    tracked = make_tracked("gave-up")
    tracked.prediction = before = forecast(server)
    for _ in range(20):
        server.predictor.gave_up(server.backend, tracked, now=10 * before.ttft_s)
    assert forecast(server).ttft_s > 1.3 * before.ttft_s


def test_a_wait_given_up_before_the_forecast_teaches_nothing() -> None:
    server = Server(decoding=1)
    tracked = make_tracked("gave-up")
    tracked.prediction = before = forecast(server)
    server.predictor.gave_up(server.backend, tracked, now=0.5 * before.ttft_s)
    after = forecast(server)
    assert (after.ttft_s, after.ttft_p90_s) == (before.ttft_s, before.ttft_p90_s)


def test_paces_of_whole_answers_correct_the_forecast() -> None:
    server = Server(decoding=4)
    for _ in range(200):
        tracked = make_tracked("done")
        tracked.prediction = forecast(server)
        tracked.told = server.predictor.told(server.backend, tracked.prediction)
        server.predictor.finished(server.backend, tracked, 1.5 * tracked.prediction.raw_tpot_s)
    corrected = forecast(server)
    assert corrected.tpot_s == pytest.approx(1.5 * corrected.raw_tpot_s, rel=0.05)
    told = server.predictor.told(server.backend, corrected)
    assert told.tpot_s == pytest.approx(corrected.tpot_s, rel=0.05)
    assert told.tpot_p90_s > told.tpot_s


def test_answers_that_arrive_in_one_piece_leave_the_forecast_right_and_trusted() -> None:
    server = Server(decoding=4)
    teach_pace(server, step_s=0.006, reports=40)
    for number in range(200):
        tracked = make_tracked("done")
        tracked.prediction = forecast(server)
        tracked.told = server.predictor.told(server.backend, tracked.prediction)
        server.predictor.finished(server.backend, tracked, 0.006 if number % 8 else 1e-5)
    told = server.predictor.told(server.backend, forecast(server))
    assert told.tpot_s == pytest.approx(0.006, rel=0.2)
    assert server.predictor.timing(server.backend.id).tpot_error.trust > 0.8


@pytest.mark.parametrize(("first_tokens", "learned"), [(20, 0), (19, 1)])
def test_an_answer_in_one_piece_shows_no_pace_of_a_server_that_is_known(
    first_tokens: int, learned: int
) -> None:
    server = Server(decoding=4)
    teach_pace(server, step_s=0.006, reports=40)
    timing = server.predictor.timing(server.backend.id)
    teach_first_tokens(server, factor=1.0, count=first_tokens - timing.prefill.samples)
    tracked = make_tracked("done")
    tracked.prediction = forecast(server)
    tracked.told = server.predictor.told(server.backend, tracked.prediction)
    server.predictor.finished(server.backend, tracked, 1e-5)
    assert timing.tpot_error.samples == learned
    assert timing.told_error.samples == 1


def test_without_a_forecast_nothing_is_learned_of_its_error() -> None:
    server = Server(decoding=1)
    before = forecast(server)
    tracked = make_tracked("unforeseen")
    server.predictor.finished(server.backend, tracked, 9.0)
    server.predictor.first_token(server.backend, tracked, now=9.0)
    server.predictor.gave_up(server.backend, tracked, now=9.0)
    timing = server.predictor.timing(server.backend.id)
    assert (timing.ttft_error.samples, timing.tpot_error.samples) == (0, 0)
    assert forecast(server).tpot_s == before.tpot_s


# -- a new server -----------------------------------------------------------------------------


def test_a_new_server_starts_from_the_mean_of_its_pool() -> None:
    ledger, predictor = make_ledger(), LatencyPredictor(prior=StepTimePrior())
    for name, step_s in (("slow", 0.06), ("slower", 0.08)):
        backend = ledger.join(BackendId(name), serving())
        backend.decoding = 8
        for number in range(100):
            predictor.progressed(
                backend, streams=8, tokens=8 * 0.25 / step_s, last_chunk_at=number / 4
            )
    new = ledger.join(BackendId("new"), serving())
    predictor.glance(new, now=30.0)
    assert predictor.timing(new.id).decode.predict(8, 0) == pytest.approx(0.07, rel=0.1)


def test_a_server_of_few_samples_tells_a_new_one_nothing() -> None:
    server = Server(decoding=8)
    teach_pace(server, step_s=0.08, reports=4)
    new = server.ledger.join(BackendId("new"), serving())
    server.predictor.glance(new, now=30.0)
    assert server.predictor.timing(new.id).decode.step_s == StepTimePrior().step_s


def test_an_idle_server_without_samples_is_believed_to_be_like_the_others_by_now() -> None:
    server = Server(decoding=8)
    new = server.ledger.join(BackendId("new"), serving())
    server.predictor.glance(new, now=0.0)
    teach_pace(server, step_s=0.08, reports=40)
    known_s = server.predictor.timing(server.backend.id).decode.predict(8, 4_000)
    server.predictor.glance(new, now=30.0)
    assert server.predictor.timing(new.id).decode.predict(8, 4_000) == pytest.approx(known_s)
    teach_pace(server, step_s=0.04, reports=40)
    server.predictor.glance(new, now=30.5)  # not more often than once a second
    assert server.predictor.timing(new.id).decode.predict(8, 4_000) == pytest.approx(known_s)


# -- a change of speed ------------------------------------------------------------------------


def test_a_server_of_half_the_speed_is_followed_within_seconds() -> None:
    server = Server(decoding=8)
    teach_pace(server, step_s=0.02, reports=200)
    teach_pace(server, step_s=0.04, reports=12)
    timing = server.predictor.timing(server.backend.id)
    assert timing.decode.predict(8, 4_000) == pytest.approx(0.04, rel=0.05)
    assert timing.changed_at > 0.0


def test_what_was_forecast_before_a_change_of_speed_teaches_nothing() -> None:
    server = Server(decoding=8)
    teach_pace(server, step_s=0.02, reports=200)
    tracked = make_tracked("before")
    tracked.prediction = prediction = forecast(server)
    tracked.told = told = server.predictor.told(server.backend, prediction)
    teach_pace(server, step_s=0.04, reports=12)
    timing = server.predictor.timing(server.backend.id)
    biases = timing.ttft_error.bias, timing.tpot_error.bias
    server.predictor.first_token(server.backend, tracked, now=2 * prediction.ttft_s)
    server.predictor.finished(server.backend, tracked, 2 * told.tpot_s)
    assert (timing.ttft_error.bias, timing.tpot_error.bias) == biases
    assert timing.told_error.relative == pytest.approx(0.5)
    assert timing.ttft_error.relative == pytest.approx(0.5)


def test_a_server_is_known_once_its_steps_and_its_first_tokens_are() -> None:
    server = Server(decoding=8)
    known = server.predictor.is_known
    assert not known(server.backend.id)
    assert not known(BackendId("unheard-of"))
    teach_pace(server, step_s=0.02, reports=30)
    assert not known(server.backend.id)
    teach_first_tokens(server, factor=1.0, count=30)
    assert known(server.backend.id)


def test_to_ask_what_is_known_of_a_server_does_not_fix_its_start() -> None:
    predictor = LatencyPredictor(prior=StepTimePrior())
    assert predictor.known_timing(BackendId("a")) is None
    timing = predictor.timing(BackendId("a"))
    assert predictor.known_timing(BackendId("a")) is timing
