"""The simulated /metrics page beside the recorded one, and the quirks of lora_requests_info."""

import re
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.simulator.metrics_page import Histogram, ServerMetrics
from tests.simulator.engine_builders import QUIET, make_engine, make_request, run_until_idle
from tests.simulator.http_client import RECORDINGS, LiveServer


def _samples(page: str) -> dict[str, list[list[str]]]:
    """Names of samples with the label names of each."""
    found: dict[str, list[list[str]]] = {}
    for name, labels in re.findall(r"^(vllm:\w+)\{([^}]*)\}", page, re.MULTILINE):
        found.setdefault(name, []).append(re.findall(r'(\w+)="', labels))
    return found


async def test_every_sample_has_a_recorded_name_and_the_recorded_labels(
    server: LiveServer,
) -> None:
    await server.chat(model="a", max_tokens=3)
    ours = _samples((await server.get("/metrics")).body.decode())
    real = _samples((RECORDINGS / "metrics_warm_idle.txt").read_text())
    assert ours.keys() <= real.keys()
    for name, labels in ours.items():
        assert set(labels[0]) <= set(real[name][0]), name
        assert labels[0] == sorted(labels[0])


async def test_the_page_is_valid_and_counts_what_ran(server: LiveServer) -> None:
    usage = (await server.chat(max_tokens=9)).json()["usage"]
    page = (await server.get("/metrics")).body.decode()
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert values["vllm:prompt_tokens_total"] == usage["prompt_tokens"]
    assert values["vllm:generation_tokens_total"] == 9
    assert values["vllm:iteration_tokens_total_count"] == 9
    assert values["vllm:time_to_first_token_seconds_count"] == 1
    assert values["vllm:e2e_request_latency_seconds_count"] == 1
    assert values["vllm:num_requests_running"] == 0
    assert 'finished_reason="length",model_name="base"} 1.0' in page
    assert "lora_requests_info" not in page


def _lora_series(page: str) -> dict[str, float]:
    pattern = r'running_lora_adapters="([^"]*)",waiting_lora_adapters="([^"]*)"\} (\S+)'
    found = re.findall(pattern, page)
    assert all(running == waiting for running, waiting, _ in found)
    return {running: float(value) for running, _, value in found}


def test_adapter_series_are_never_removed_and_carry_the_time_of_their_last_update() -> None:
    times = iter(range(1_795_326_462, 1_795_326_562))
    metrics = ServerMetrics(model="base", wall_clock=lambda: next(times) + 0.5)
    engine = make_engine()
    metrics.on_adapters(())
    assert _lora_series(metrics.page(engine)) == {}
    for running in (("a",), ("a", "b"), (), ("a",)):
        metrics.on_adapters(running)
    series = _lora_series(metrics.page(engine))
    assert series == {"a": 1_795_326_465.5, "a,b": 1_795_326_463.5, "": 1_795_326_464.5}
    assert "1.7953264655000000e+09" in metrics.page(engine)


def test_requests_that_wait_for_a_slot_are_counted_as_deferred() -> None:
    engine = make_engine(type(QUIET)(max_loras=1, noise_sigma=0.0))
    for adapter in ("a", "b", "c"):
        engine.submit(make_request(adapter, adapter=adapter), now=0.0)
    engine.advance(0.0)
    page = ServerMetrics(model="m", wall_clock=lambda: 1.0).page(engine)
    assert 'waiting{engine="0",model_name="m"} 2.0' in page
    assert 'reason="deferred"} 2.0' in page
    assert 'reason="capacity"} 0.0' in page
    run_until_idle(engine)


def test_histogram_buckets_are_cumulative_and_bounds_inclusive() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    values = [line.split()[-1] for line in histogram.lines("x", "m")]
    assert values == ["2.0", "3.0", "4.0", "4.0", "12.0"]


@pytest.mark.parametrize("count", [3])
def test_an_aborted_request_leaves_no_trace_in_the_histograms(count: int) -> None:
    metrics = ServerMetrics(model="m", wall_clock=lambda: 1.0)
    for i in range(count):
        metrics.on_arrival(str(i), Random(i).random())
        metrics.on_abort(str(i))
        metrics.on_finished(str(i), 1.0)
    page = metrics.page(make_engine())
    assert 'e2e_request_latency_seconds_count{engine="0",model_name="m"} 0.0' in page
