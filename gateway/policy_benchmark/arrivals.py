"""Arrival instants of a stream of requests, as a workload's `arrivals` describe them."""

from collections.abc import Iterator, Sequence
from random import Random

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.traces import TraceRow, source_of
from gateway.policy_benchmark.workload_model import Arrivals, Bulk, Stage

Arrival = tuple[float, TraceRow | None]
"""Instant (s since the start), and the row of the trace that it follows."""


def arrival_stream(
    spec: Arrivals, *, rate_rps: float, rng: Random, library: TraceLibrary
) -> Iterator[Arrival]:
    """Arrivals in order of time; endless, except bulk ones.

    Args:
        spec: the section of the workload.
        rate_rps: mean rate; stages multiply it, bulk arrivals ignore it.
        rng: where draws come from.
        library: where traces are read.

    Raises:
        BenchmarkError: a trace without arrival times.
    """
    if spec.bulk is not None:
        return _bulk(spec.bulk)
    if spec.trace is not None:
        if not source_of(spec.trace).has_times:
            raise BenchmarkError(f"trace {spec.trace} has no arrival times, only lengths")
        return _follow(library.rows(spec.trace), rate_rps, rng, spec.level_over)
    if spec.stages:
        return _staged(spec.stages, rate_rps, rng, repeat=spec.repeat)
    return _renewal(spec.cv or 1.0, rate_rps, rng)


def _bulk(spec: Bulk) -> Iterator[Arrival]:
    for at in sorted(spec.at):
        for _ in range(spec.requests):
            yield at, None


def _follow(
    rows: Sequence[TraceRow], rate_rps: float, rng: Random, level_over: float | None
) -> Iterator[Arrival]:
    """The trace's gaps, scaled, from a random row on; its end joins its start by a mean gap."""
    times = [row.at_s for row in rows]
    if level_over is not None:
        times = _levelled(times, level_over)
    mean_gap = (times[-1] - times[0]) / max(1, len(times) - 1)
    if mean_gap <= 0.0:
        raise BenchmarkError("all rows of the trace arrive at once; its rate is unknown")
    scale = 1.0 / (rate_rps * mean_gap)
    index = rng.randrange(len(rows))
    at = 0.0
    while True:
        yield at, rows[index]
        index += 1
        if index == len(rows):
            index = 0
            at += mean_gap * scale
        else:
            at += (times[index] - times[index - 1]) * scale


def _levelled(times: Sequence[float], window_s: float) -> list[float]:
    """Arrival times in operational time: each gap times the rate within `window_s` around it."""
    levelled, first, last = [0.0], 0, 0
    for index in range(1, len(times)):
        low = max(times[0], times[index] - window_s / 2.0)
        high = min(times[-1], times[index] + window_s / 2.0)
        while times[first] < low:
            first += 1
        while last < len(times) and times[last] <= high:
            last += 1
        rate = (last - first) / max(high - low, 1e-9)
        levelled.append(levelled[-1] + (times[index] - times[index - 1]) * rate)
    return levelled


def _renewal(cv: float, rate_rps: float, rng: Random) -> Iterator[Arrival]:
    shape = 1.0 / cv**2
    at = 0.0
    while True:
        at += rng.gammavariate(shape, 1.0 / (shape * rate_rps))
        yield at, None


def _staged(
    stages: Sequence[Stage], rate_rps: float, rng: Random, *, repeat: bool
) -> Iterator[Arrival]:
    """Poisson arrivals of piecewise constant rate, by rescaling time of a unit-rate process."""
    at, index, stage_end = 0.0, 0, stages[0].duration
    while True:
        budget = rng.expovariate(1.0)
        while True:
            rate = stages[index].rate * rate_rps
            endless = not repeat and index == len(stages) - 1
            if endless or budget < rate * (stage_end - at):
                at += budget / rate
                break
            budget -= rate * (stage_end - at)
            at = stage_end
            index = (index + 1) % len(stages)
            stage_end += stages[index].duration
        yield at, None
