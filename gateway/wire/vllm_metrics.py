"""The few lines that scheduling needs of a vLLM server's /metrics page."""

import re
from typing import Final

from gateway.scheduling.model import BackendLoad
from gateway.wire.metrics_page import MetricsPage, number_of

_LABEL_VALUE: Final = re.compile(rb'((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\(.)")


def read_vllm(scan: MetricsPage) -> BackendLoad:
    """The load that a vLLM's page tells; a field is None where the page does not.

    Counts are summed over the page's engines, the share of KV blocks in use is averaged. Names
    of older versions are understood: gpu_cache_usage_perc, counters without `_total`.
    """
    running = scan.total(b"vllm:num_requests_running")
    waiting = scan.total(b"vllm:num_requests_waiting")
    deferred = scan.total(b"vllm:num_requests_waiting_by_reason", having=b'reason="deferred"')
    kv_usage = scan.mean(b"vllm:kv_cache_usage_perc")
    if kv_usage is None:
        kv_usage = scan.mean(b"vllm:gpu_cache_usage_perc")
    queries = scan.counter(b"vllm:prefix_cache_queries")
    hits = scan.counter(b"vllm:prefix_cache_hits")
    preemptions = scan.counter(b"vllm:num_preemptions")
    prompt_tokens = scan.counter(b"vllm:prompt_tokens")
    generation_tokens = scan.counter(b"vllm:generation_tokens")
    largest_step = _largest_step(scan)
    steps = scan.total(b"vllm:iteration_tokens_total_count")
    max_loras, active_adapters = _newest_adapters(scan)
    kv_blocks, block_tokens = _kv_size(scan)
    return BackendLoad(
        running=None if running is None else int(running),
        waiting=None if waiting is None else int(waiting),
        waiting_deferred=None if deferred is None else int(deferred),
        kv_usage=None if kv_usage is None else min(1.0, kv_usage),
        kv_blocks=kv_blocks,
        block_tokens=block_tokens,
        max_loras=max_loras,
        active_adapters=active_adapters,
        prompt_tokens_total=prompt_tokens,
        generation_tokens_total=generation_tokens,
        preemptions_total=preemptions,
        steps_total=steps,
        prefix_queries_total=queries,
        prefix_hits_total=hits,
        largest_step_tokens=largest_step,
    )


def _largest_step(scan: MetricsPage) -> int | None:
    """Bound of the highest bucket that holds a step, over all engines; None without any step.

    Buckets are cumulative: it is the first one whose count is that of the last one.
    """
    block = scan.buckets(b"vllm:iteration_tokens_total")
    largest = 0.0
    begin = 0
    while (last := block.find(b'le="+Inf"', begin)) >= 0:
        end = block.find(b"\n", last)
        count = block[block.find(b"} ", last) : end]
        first = block.find(count + b"\n", begin)
        bound = block[block.rfind(b'le="', begin, first) + 4 : first].partition(b'"')[0]
        if count != b"} 0.0":
            largest = max(largest, number_of(bound) or 0.0)
        begin = end
    return int(largest) or None


def _kv_size(scan: MetricsPage) -> tuple[int | None, int | None]:
    """KV blocks of all engines, and tokens in one block."""
    blocks, block_tokens = 0, None
    for labels, _ in scan.samples(b"vllm:cache_config_info"):
        block_tokens = _integer(labels, b"block_size") or block_tokens
        number = _integer(labels, b"num_gpu_blocks")
        tokens = _integer(labels, b"kv_cache_size_tokens")
        if number is None and tokens is not None and block_tokens:
            number = tokens // block_tokens
        blocks += number or 0
    return blocks or None, block_tokens


def _newest_adapters(scan: MetricsPage) -> tuple[int | None, tuple[str, ...] | None]:
    """Adapter slots and adapters with requests in flight.

    vLLM adds a series per combination of adapters and never removes one; the value is the time
    of its last update.
    """
    series = scan.samples(b"vllm:lora_requests_info")
    if not series:
        return None, None
    labels, _ = max(series, key=lambda sample: sample[1])
    running = _label(labels, b"running_lora_adapters")
    waiting = _label(labels, b"waiting_lora_adapters")
    names = (running + b"," + waiting).decode(errors="replace").split(",")
    return _integer(labels, b"max_lora"), tuple(dict.fromkeys(name for name in names if name))


def _label(labels: bytes, name: bytes) -> bytes:
    """Value of a label; empty where it is missing. Quotes in values are escaped."""
    at = labels.find(b',%b="' % name)
    if at < 0:
        at = labels.find(b'{%b="' % name)
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = labels.find(b'"', start)
    if labels.find(b"\\", start, end) < 0:
        return labels[start:end] if end >= 0 else b""
    found = _LABEL_VALUE.match(labels, start)
    return _ESCAPE.sub(rb"\1", found[1]) if found else b""


def _integer(labels: bytes, name: bytes) -> int | None:
    value = _label(labels, name)
    return int(value) if value.isdigit() and len(value) < 16 else None
