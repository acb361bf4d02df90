"""What the gateway is to reach, and whether a run shows it."""

import math
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.overhead.results import Results
from benchmarks.overhead.systems import DIRECT, OURS


class Goal(NamedTuple):
    """One line: `figure` of the results is to be at most, or at least, `bound`."""

    text: str
    figure: Callable[[Results], float]
    bound: float
    at_least: bool = False

    def holds(self, results: Results) -> bool | None:
        """Whether it is reached; None if it was not measured."""
        value = self.figure(results)
        if math.isnan(value):
            return None
        return value >= self.bound if self.at_least else value <= self.bound


def _ours(measure: str, figure: str) -> Callable[[Results], float]:
    return lambda results: results.median(measure, OURS, figure)


def _ratio(measure: str, figure: str, other: str) -> Callable[[Results], float]:
    return lambda results: results.ratio(measure, figure, OURS, other)


def _added_us(measure: str, figure: str) -> Callable[[Results], float]:
    return lambda results: results.added(measure, figure, OURS, DIRECT)


def _added_by_size(size: int) -> Callable[[Results], float]:
    """What a body of `size` adds, beyond what it costs without a gateway."""
    return _added_us("bodies", f"p50_us_{size}")


def _memory_mb(measure: str, streams: int, per_stream_kb: float) -> Callable[[Results], float]:
    """Memory above `per_stream_kb` per stream, MB."""
    return lambda results: (
        results.median(measure, OURS, "open_mb") - streams * per_stream_kb / 1_000
    )


GOALS = (
    Goal("requests/s, not streamed", _ours("requests", "per_s"), 5_000, at_least=True),
    Goal("CPU us per request, not streamed", _ours("requests", "cpu_us"), 200),
    Goal("requests/s: ratio to smg", _ratio("requests", "per_s", "smg"), 1.3, at_least=True),
    Goal(
        "requests/s: ratio to sglang-router",
        _ratio("requests", "per_s", "sglang-router"),
        1.0,
        at_least=True,
    ),
    Goal(
        "requests/s: ratio to vllm-router",
        _ratio("requests", "per_s", "vllm-router"),
        0.65,
        at_least=True,
    ),
    Goal(
        "requests/s: ratio to LiteLLM", _ratio("requests", "per_s", "litellm"), 100, at_least=True
    ),
    Goal(
        "streams of 10 chunks/s: ratio to vllm-router",
        _ratio("streams", "per_s", "vllm-router"),
        1.0,
        at_least=True,
    ),
    Goal(
        "streams of 10 chunks/s: ratio to sglang-router",
        _ratio("streams", "per_s", "sglang-router"),
        3.0,
        at_least=True,
    ),
    Goal("CPU per paced chunk: ratio to nginx", _ratio("chunks", "cpu_us", "nginx"), 1.3),
    Goal(
        "CPU per paced chunk: ratio to vllm-router", _ratio("chunks", "cpu_us", "vllm-router"), 1.1
    ),
    Goal("added gap between chunks, p99 us", _added_us("chunks", "gap_p99_us"), 1_000),
    Goal("added latency, 1 connection, p50 us", _added_us("latency", "p50_us"), 600),
    Goal("added latency, 1 connection, p99 us", _added_us("latency", "p99_us"), 900),
    Goal("latency p50: ratio to vllm-router", _ratio("latency", "p50_us", "vllm-router"), 1.3),
    Goal("25,600 chunks/s: share of a core", _ours("fast_chunks", "core"), 0.75),
    Goal("25,600 chunks/s: delivered", _ours("fast_chunks", "delivered"), 0.99, at_least=True),
    Goal("body of 100 kB: added us", _added_by_size(100_000), 1_000),
    Goal("body of 1 MB: added us", _added_by_size(1_000_000), 8_000),
    Goal("gap p99 beside bodies of 1 MB, us", _ours("beside_large", "gap_p99_us"), 5_000),
    Goal("2,000 streams: MB above 20 kB each", _memory_mb("streams_2000", 2_000, 20), 60),
    Goal("9,000 streams: MB", _ours("streams_9000", "open_mb"), 300),
    Goal("9,000 streams: served", _ours("streams_9000", "served"), 9_000, at_least=True),
)
