import gzip
from itertools import islice, pairwise, takewhile
from pathlib import Path
from random import Random

import pytest

from gateway.policy_benchmark.arrivals import arrival_stream
from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.traces import SOURCES
from gateway.policy_benchmark.workload_model import Arrivals, Bulk, Stage


def times(spec: Arrivals, *, rate: float, until: float, library: TraceLibrary) -> list[float]:
    stream = arrival_stream(spec, rate_rps=rate, rng=Random(1), library=library)
    return [at for at, _ in takewhile(lambda pair: pair[0] < until, stream)]


@pytest.fixture
def library(tmp_path: Path) -> TraceLibrary:
    return TraceLibrary(tmp_path)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_a_renewal_process_has_its_rate_and_variation(cv: float, library: TraceLibrary) -> None:
    seen = times(Arrivals(cv=cv), rate=10.0, until=2000.0, library=library)
    gaps = [b - a for a, b in pairwise(seen)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.1, rel=0.1)
    assert variance**0.5 / mean == pytest.approx(cv, rel=0.1)


def test_stages_alternate_between_their_rates_for_ever(library: TraceLibrary) -> None:
    stages = (Stage(duration=10.0, rate=1.0), Stage(duration=10.0, rate=5.0))
    seen = times(Arrivals(stages=stages), rate=20.0, until=400.0, library=library)
    slow = sum(1 for at in seen if at % 20.0 < 10.0)
    fast = len(seen) - slow
    assert slow == pytest.approx(20 * 200, rel=0.06)
    assert fast == pytest.approx(100 * 200, rel=0.03)


def test_without_repeat_the_last_stage_goes_on(library: TraceLibrary) -> None:
    stages = (Stage(duration=1.0, rate=0.0), Stage(duration=1.0, rate=1.0))
    spec = Arrivals(stages=stages, repeat=False)
    seen = times(spec, rate=100.0, until=11.0, library=library)
    assert min(seen) >= 1.0
    assert len(seen) == pytest.approx(1000, rel=0.15)


def test_bulk_arrivals_ignore_the_rate(library: TraceLibrary) -> None:
    spec = Arrivals(bulk=Bulk(at=(3.0, 1.0), requests=2))
    assert times(spec, rate=99.0, until=10.0, library=library) == [1.0, 1.0, 3.0, 3.0]


def test_a_trace_is_compressed_to_the_rate_and_repeated(library: TraceLibrary) -> None:
    seen = times(Arrivals(trace="azure2023_conv"), rate=1000.0, until=60.0, library=library)
    assert len(seen) == pytest.approx(60_000, rel=0.02)
    assert seen == sorted(seen)


def test_a_trend_is_levelled_out_where_that_is_wanted(tmp_path: Path) -> None:
    # 100 s at 1/s, then 100 s at 9/s.
    offsets = [*range(100), *(100 + n / 9 for n in range(900))]
    lines = "".join(f"{at:.6f},1,1\n" for at in offsets)
    text = "t_s,input_tokens,output_tokens\n" + lines
    (tmp_path / SOURCES["azure2023_conv"].file).write_bytes(gzip.compress(text.encode()))
    library = TraceLibrary(tmp_path)

    def halves(level_over: float | None) -> float:
        spec = Arrivals(trace="azure2023_conv", level_over=level_over)
        stream = arrival_stream(spec, rate_rps=10.0, rng=Random(1), library=library)
        gaps = [at for at, _ in islice(stream, 1000)]
        widths = sorted(b - a for a, b in pairwise(gaps))
        return widths[-50] / widths[50]

    assert halves(None) == pytest.approx(9.0, rel=0.01)
    assert halves(10.0) == pytest.approx(1.0, abs=0.2)


def test_a_table_of_lengths_is_no_source_of_arrivals(library: TraceLibrary) -> None:
    with pytest.raises(BenchmarkError, match="has no arrival times"):
        arrival_stream(
            Arrivals(trace="arxiv_summarization_lengths"),
            rate_rps=1.0,
            rng=Random(1),
            library=library,
        )
