"""Pages and model lists of real servers, of older ones, and of broken ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.scheduling.model import BackendLoad, ServedModel
from gateway.wire.engine_metrics import scan_metrics
from gateway.wire.model_list import scan_models
from tests.wire.recorded import answer_to, page

BUSY = "lora_load.full_t1.5.txt"
IDLE = "metrics_after_lora_load_idle.txt"
COLD = "metrics_cold_idle.txt"


def sum_of(name: str, metric: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page(name).decode())
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


@pytest.mark.parametrize("name", [BUSY, IDLE, COLD])
def test_a_recorded_page_is_read_as_by_the_full_parser(name: str) -> None:
    load = scan_metrics(page(name))

    assert load.running == sum_of(name, "vllm:num_requests_running")
    assert load.waiting == sum_of(name, "vllm:num_requests_waiting")
    assert load.waiting_deferred == sum_of(
        name, "vllm:num_requests_waiting_by_reason", reason="deferred"
    )
    assert load.kv_usage == sum_of(name, "vllm:kv_cache_usage_perc")
    assert (load.kv_blocks, load.block_tokens) == (256, 32)
    assert load.prompt_tokens_total == sum_of(name, "vllm:prompt_tokens_total")
    assert load.generation_tokens_total == sum_of(name, "vllm:generation_tokens_total")
    assert load.preemptions_total == sum_of(name, "vllm:num_preemptions_total")
    assert load.steps_total == sum_of(name, "vllm:iteration_tokens_total_count")
    assert load.prefix_queries_total == sum_of(name, "vllm:prefix_cache_queries_total")
    assert load.prefix_hits_total == sum_of(name, "vllm:prefix_cache_hits_total")


def test_adapters_are_those_of_the_newest_series() -> None:
    busy, idle, cold = (scan_metrics(page(name)) for name in (BUSY, IDLE, COLD))

    assert (busy.max_loras, busy.active_adapters) == (2, ("a", "b"))
    assert (idle.max_loras, idle.active_adapters) == (2, ())
    assert (cold.max_loras, cold.active_adapters) == (None, None)


def test_waiting_adapters_are_active_too() -> None:
    load = scan_metrics(
        b'vllm:lora_requests_info{max_lora="4",running_lora_adapters="b,a",'
        b'waiting_lora_adapters="a,c"} 1.7e+09\n'
    )

    assert load.active_adapters == ("b", "a", "c")


def test_an_escaped_label_is_read_as_it_was_written() -> None:
    load = scan_metrics(
        b'vllm:lora_requests_info{max_lora="1",running_lora_adapters="a\\"}\\\\",'
        b'waiting_lora_adapters=""} 1\n'
    )

    assert load.active_adapters == ('a"}\\',)


def test_engines_are_added_up_and_their_kv_use_is_averaged() -> None:
    lines = []
    for engine, usage in (("0", "0.2"), ("1", "0.6")):
        labels = f'engine="{engine}",model_name="m"'
        lines += [
            f"vllm:num_requests_running{{{labels}}} 2.0",
            f"vllm:kv_cache_usage_perc{{{labels}}} {usage}",
            f'vllm:cache_config_info{{block_size="16",engine="{engine}",num_gpu_blocks="9"}} 1.0',
            f"vllm:prompt_tokens_total{{{labels}}} 5.0",
        ]

    load = scan_metrics("\n".join(sorted(lines)).encode())

    assert load == BackendLoad(
        running=4, kv_usage=0.4, kv_blocks=18, block_tokens=16, prompt_tokens_total=10.0
    )


def test_older_names_are_understood() -> None:
    load = scan_metrics(
        b'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\n'
        b'vllm:prompt_tokens{model_name="m"} 7\n'
        b'vllm:num_preemptions{model_name="m"} 1\n'
    )

    assert load == BackendLoad(kv_usage=0.5, prompt_tokens_total=7.0, preemptions_total=1.0)


def test_kv_blocks_follow_from_the_tokens_where_they_are_not_told() -> None:
    line = (
        b'vllm:cache_config_info{block_size="16",kv_cache_size_tokens="170",num_gpu_blocks="%b"} 1'
    )

    assert scan_metrics(line % b"None").kv_blocks == 10
    assert scan_metrics(line % b"11").kv_blocks == 11
    assert scan_metrics(line.replace(b'block_size="16",', b"") % b"None").kv_blocks is None


def test_a_label_counts_by_its_whole_name() -> None:
    line = b'vllm:cache_config_info{hash_block_size="8",x=",block_size",block_size="16"} 1'

    assert scan_metrics(line).block_tokens == 16


def test_names_are_found_in_any_order_and_by_their_whole_length() -> None:
    load = scan_metrics(
        b'vllm:num_requests_waiting_by_reason{reason="deferred"} 1\n'
        b"vllm:num_requests_waiting_total 9\n"
        b"vllm:num_requests_waiting 2\n"
        b"vllm:num_requests_running 3 1700000000\n"
    )

    assert (load.running, load.waiting, load.waiting_deferred) == (3, 2, 1)


def test_a_longer_name_behind_does_not_hide_the_name_before() -> None:
    load = scan_metrics(
        b"vllm:num_requests_waiting 2\nvllm:num_requests_waiting_x 9\n"
        b"vllm:num_requests_running 3\nvllm:num_requests_waiting_y 9\n"
    )

    assert (load.running, load.waiting) == (3, 2)


def test_help_lines_and_other_text_are_no_samples() -> None:
    load = scan_metrics(
        b"# HELP vllm:num_requests_running 7\n# TYPE vllm:num_requests_running gauge\n"
        b" vllm:num_requests_running 7\nx_vllm:num_requests_running 7\n"
    )

    assert load == BackendLoad()


@pytest.mark.parametrize(
    "value", [b"", b" ", b"NaN", b"+Inf", b"-1", b"1e300", b"one", b"{", b"\xff"]
)
def test_a_value_that_is_no_count_is_left_out(value: bytes) -> None:
    load = scan_metrics(b"vllm:num_requests_running %b\nvllm:num_requests_waiting 1" % value)

    assert load == BackendLoad(waiting=1)


def test_more_than_all_blocks_are_all_blocks() -> None:
    assert scan_metrics(b"vllm:kv_cache_usage_perc 1.5").kv_usage == 1.0


PIECES = st.sampled_from(
    [
        b"vllm:num_requests_running",
        b"vllm:kv_cache_usage_perc",
        b"vllm:lora_requests_info",
        b"vllm:cache_config_info",
        b"vllm:prompt_tokens",
        b'{max_lora="',
        b',block_size="',
        b'{num_gpu_blocks="',
        b',running_lora_adapters="',
        b"} ",
        b"{",
        b'"',
        b"\\",
        b"\n",
        b" 1",
        b"9" * 30,
        b"NaN",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=6), max_size=30).map(b"".join))
def test_no_bytes_break_the_scan(garbage: bytes) -> None:
    load = scan_metrics(garbage)

    assert load.running is None or load.running >= 0
    assert load.kv_usage is None or 0.0 <= load.kv_usage <= 1.0
    scan_models(garbage)


@given(st.integers(0, 57_038), st.integers(0, 57_038))
def test_no_torn_page_breaks_the_scan(start: int, stop: int) -> None:
    scan_metrics(page(BUSY)[start:stop])


def test_recorded_models_are_read_with_their_parents() -> None:
    models = scan_models(page("models.txt").partition(b"\r\n\r\n")[2])

    assert models == (
        ServedModel("base", None, 2_048),
        *(ServedModel(name, "base", None) for name in "abcd"),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps({"data": [{"name": "x"}]}).encode(),
        json.dumps({"data": [{"id": 7}]}).encode(),
        b'{"data":[{"id":"\xff"}]}',
        b"[" * 9_000,
        answer_to("err_unknown_model_chat"),
    ],
)
def test_what_is_no_model_list_is_none(body: bytes) -> None:
    assert scan_models(body) is None


def test_an_empty_model_list_is_a_model_list() -> None:
    empty: dict[str, Any] = {"object": "list", "data": []}

    assert scan_models(json.dumps(empty).encode()) == ()
