"""Draws of prompt and answer lengths as a workload's `lengths` describe them."""

import math
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Protocol

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.stand_ins import interpolate
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.traces import TraceRow
from gateway.policy_benchmark.workload_model import Lengths, LogNormal, TokenCounts


class LengthSource(Protocol):
    """Gives the tokens of the next request."""

    def draw(self, rng: Random, row: TraceRow | None) -> TraceRow:
        """A row whose lengths (and prefix blocks) count; `row` is the arrival trace's own."""
        ...


def build_lengths(
    spec: Lengths, library: TraceLibrary, arrival_trace: str | None, limit: int
) -> LengthSource:
    """The source that a `lengths` section describes.

    Args:
        spec: the section.
        library: where traces are read.
        arrival_trace: the trace that arrivals follow, whose rows `in_order` lengths are.
        limit: longest prompt plus answer of the model; longer rows are left out.
    """
    if spec.mixture:
        parts = [build_lengths(p.lengths, library, arrival_trace, limit) for p in spec.mixture]
        return _Mixture(parts, [part.weight for part in spec.mixture])
    if spec.trace is not None:
        rows = library.rows(spec.trace)
        longest = min(spec.max_input or limit, limit)
        fitting = [r for r in rows if r.input_tokens <= longest and _total(r) <= limit]
        if not fitting:
            raise BenchmarkError(f"trace {spec.trace}: no row fits {longest} prompt tokens")
        return _FromTrace(
            fitting, follows=spec.in_order and spec.trace == arrival_trace, limit=longest
        )
    assert spec.input is not None
    assert spec.output is not None
    return _Drawn(spec.input, spec.output, limit)


def _total(row: TraceRow) -> int:
    return row.input_tokens + row.output_tokens


class _FromTrace:
    """Rows of a trace: drawn evenly, or the arrival's own where that is wanted."""

    def __init__(self, rows: Sequence[TraceRow], *, follows: bool, limit: int) -> None:
        self._rows = rows
        self._follows = follows
        self._limit = limit

    def draw(self, rng: Random, row: TraceRow | None) -> TraceRow:
        if self._follows and row is not None and row.input_tokens <= self._limit:
            return row
        return self._rows[int(rng.random() * len(self._rows))]


class _Mixture:
    def __init__(self, parts: Sequence[LengthSource], weights: Sequence[float]) -> None:
        self._parts = parts
        self._cumulative = list(accumulate(weights))

    def draw(self, rng: Random, row: TraceRow | None) -> TraceRow:
        at = rng.random() * self._cumulative[-1]
        return self._parts[bisect(self._cumulative, at)].draw(rng, row)


class _Drawn:
    def __init__(self, inputs: TokenCounts, outputs: TokenCounts, limit: int) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._limit = limit

    def draw(self, rng: Random, row: TraceRow | None) -> TraceRow:
        del row
        inputs = min(_draw(self._inputs, rng), self._limit - 1)
        outputs = min(_draw(self._outputs, rng), self._limit - inputs)
        return TraceRow(0.0, inputs, outputs)


def _draw(counts: TokenCounts, rng: Random) -> int:
    if counts.fixed is not None:
        return counts.fixed
    if counts.uniform is not None:
        return rng.randint(*counts.uniform)
    if counts.lognormal is not None:
        return max(1, round(_lognormal(counts.lognormal, rng)))
    assert counts.quantiles is not None
    points = tuple(sorted(counts.quantiles))
    values = tuple(counts.quantiles[p] for p in points)
    return interpolate(points, values, rng.random())


def _lognormal(shape: LogNormal, rng: Random) -> float:
    variance = math.log1p(shape.cv**2)
    return rng.lognormvariate(math.log(shape.mean) - variance / 2.0, math.sqrt(variance))
