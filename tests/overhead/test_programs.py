from pathlib import Path

import orjson

from benchmarks.overhead.process_tree import parse_stat
from benchmarks.overhead.programs import metrics_template, request_body, write_metrics_page
from gateway.wire.engine_metrics import scan_metrics
from gateway.wire.openai_request import parse_json_request


def test_a_request_has_the_size_that_was_asked_for() -> None:
    for size in (1_000, 100_000):
        body = request_body(size=size, streamed=True, chunks=7, interval_us=20_000)

        assert len(body) == size
        assert orjson.loads(body)["max_tokens"] == 7
        assert parse_json_request("/v1/chat/completions", body).streamed


def test_the_metrics_page_can_be_read_as_a_servers(tmp_path: Path) -> None:
    page = write_metrics_page(tmp_path).read_bytes()

    load = scan_metrics(page)
    assert load.running == 0
    assert load.generation_tokens_total == 0
    assert load.kv_blocks == 10_000_000
    assert len(page) > 50_000


def test_values_that_change_have_room_for_twelve_digits() -> None:
    line = 'vllm:num_requests_running{engine="0",model_name="tiny"} 3.0\n'

    assert metrics_template(line).endswith('model_name="bench"} 000000000000\n')


def test_the_name_of_a_process_may_look_like_fields() -> None:
    stat = "7 (a) R 1 (b)) S 42 " + " ".join(["0"] * 9) + " 150 50 0 0"

    assert parse_stat(stat) == (42, 2.0)
