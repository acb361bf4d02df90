"""The load that a model server's /metrics page tells, whichever engine it runs.

The engine is told by the prefix of its names. vLLM's are in a file of their own; of the others,
those that their documentation lists: SGLang (references/production_metrics, with
--enable-metrics) and Text Generation Inference (reference/metrics).
"""

from gateway.scheduling.model import BackendLoad
from gateway.wire.metrics_page import MetricsPage
from gateway.wire.vllm_metrics import read_vllm


def scan_metrics(page: bytes) -> BackendLoad:
    """The load that a page tells; a field is None where the page does not."""
    scan = MetricsPage(page)
    if not scan.has_names_with(b"vllm:"):
        if scan.has_names_with(b"sglang:"):
            return _read_sglang(scan)
        if scan.has_names_with(b"tgi_"):
            return _read_tgi(scan)
    return read_vllm(scan)


def _read_sglang(scan: MetricsPage) -> BackendLoad:
    """Counts are summed over the page's engines, the share of the KV cache in use is averaged."""
    usage = scan.mean(b"sglang:token_usage")
    prompt_tokens = scan.counter(b"sglang:prompt_tokens")
    hits = scan.counter(b"sglang:cached_tokens")
    return BackendLoad(
        running=_count(scan, b"sglang:num_running_reqs"),
        waiting=_count(scan, b"sglang:num_queue_reqs"),
        kv_usage=None if usage is None else min(1.0, usage),
        prompt_tokens_total=prompt_tokens,
        generation_tokens_total=scan.counter(b"sglang:generation_tokens"),
        prefix_queries_total=None if hits is None else prompt_tokens,
        prefix_hits_total=hits,
    )


def _read_tgi(scan: MetricsPage) -> BackendLoad:
    """Tokens are those of requests that have ended: it counts them in histograms of requests."""
    return BackendLoad(
        running=_count(scan, b"tgi_batch_current_size"),
        waiting=_count(scan, b"tgi_queue_size"),
        prompt_tokens_total=scan.total(b"tgi_request_input_length_sum"),
        generation_tokens_total=scan.total(b"tgi_request_generated_tokens_sum"),
    )


def _count(scan: MetricsPage, name: bytes) -> int | None:
    total = scan.total(name)
    return None if total is None else int(total)
