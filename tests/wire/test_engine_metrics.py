"""Pages of engines other than vLLM, as their documentation shows them."""

import pytest

from gateway.scheduling.model import BackendLoad
from gateway.wire.engine_metrics import scan_metrics

SGLANG = b"""# HELP sglang:prompt_tokens_total Number of prefill tokens processed.
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{model_name="llama"} 8.128902e+06
# HELP sglang:generation_tokens_total Number of generation tokens processed.
# TYPE sglang:generation_tokens_total counter
sglang:generation_tokens_total{model_name="llama"} 7.557572e+06
# HELP sglang:cached_tokens_total Number of cached prompt tokens.
# TYPE sglang:cached_tokens_total counter
sglang:cached_tokens_total{model_name="llama",cache_source="device"} 1.0e+06
sglang:cached_tokens_total{model_name="llama",cache_source="host"} 5.0e+05
# HELP sglang:token_usage The token usage
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="llama"} 0.28
# HELP sglang:num_running_reqs The number of running requests
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="llama"} 162.0
# HELP sglang:num_queue_reqs The number of requests in the waiting queue
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="llama"} 2826.0
"""

TGI = b"""# HELP tgi_batch_current_size Current batch size
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 12
# TYPE tgi_queue_size gauge
tgi_queue_size 3
# TYPE tgi_request_input_length histogram
tgi_request_input_length_bucket{le="100"} 7
tgi_request_input_length_bucket{le="+Inf"} 9
tgi_request_input_length_sum 2048
tgi_request_input_length_count 9
# TYPE tgi_request_generated_tokens histogram
tgi_request_generated_tokens_sum 512
tgi_request_generated_tokens_count 9
"""


def test_the_page_of_sglang_is_read() -> None:
    assert scan_metrics(SGLANG) == BackendLoad(
        running=162,
        waiting=2826,
        kv_usage=0.28,
        prompt_tokens_total=8_128_902.0,
        generation_tokens_total=7_557_572.0,
        prefix_queries_total=8_128_902.0,
        prefix_hits_total=1_500_000.0,
    )


def test_the_page_of_text_generation_inference_is_read() -> None:
    assert scan_metrics(TGI) == BackendLoad(
        running=12, waiting=3, prompt_tokens_total=2048.0, generation_tokens_total=512.0
    )


@pytest.mark.parametrize("page", [b"sglang:", b"sglang:num_running_reqs x\n", b"tgi_queue_size\n"])
def test_a_broken_page_tells_nothing(page: bytes) -> None:
    assert scan_metrics(page) == BackendLoad()


def test_usage_above_the_whole_is_the_whole() -> None:
    assert scan_metrics(b"sglang:token_usage 1.3\n").kv_usage == 1.0


def test_names_in_other_texts_decide_nothing() -> None:
    """A router in front of SGLang may name it in a label or in a comment."""
    page = b'# about sglang: and tgi_\nvllm:num_requests_running 2\nx{engine="sglang:"} 1\n'
    assert scan_metrics(page).running == 2
