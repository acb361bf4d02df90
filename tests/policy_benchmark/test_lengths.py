from pathlib import Path
from random import Random

import pytest

from gateway.policy_benchmark.lengths import build_lengths
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.traces import TraceRow
from gateway.policy_benchmark.workload_model import Lengths, LogNormal, MixturePart, TokenCounts


@pytest.fixture
def library(tmp_path: Path) -> TraceLibrary:
    return TraceLibrary(tmp_path)


def draws(spec: Lengths, library: TraceLibrary, *, limit: int = 100_000) -> list[TraceRow]:
    source = build_lengths(spec, library, "azure2023_conv", limit)
    rng = Random(2)
    return [source.draw(rng, None) for _ in range(4000)]


def fixed(tokens: int) -> TokenCounts:
    return TokenCounts(fixed=tokens)


def test_a_lognormal_has_its_mean(library: TraceLibrary) -> None:
    shape = TokenCounts(lognormal=LogNormal(mean=500, cv=0.5))
    rows = draws(Lengths(input=shape, output=fixed(1)), library)
    assert sum(r.input_tokens for r in rows) / len(rows) == pytest.approx(500, rel=0.04)


def test_uniform_lengths_reach_both_ends(library: TraceLibrary) -> None:
    rows = draws(Lengths(input=TokenCounts(uniform=(1, 9)), output=fixed(1)), library)
    assert {r.input_tokens for r in rows} == set(range(1, 10))


def test_quantiles_are_kept(library: TraceLibrary) -> None:
    shape = TokenCounts(quantiles={0.0: 1, 0.5: 100, 1.0: 1000})
    rows = draws(Lengths(input=shape, output=fixed(1)), library)
    assert sum(r.input_tokens <= 100 for r in rows) == pytest.approx(2000, abs=130)


def test_a_mixture_draws_its_parts_by_weight(library: TraceLibrary) -> None:
    parts = tuple(
        MixturePart(weight=weight, lengths=Lengths(input=fixed(tokens), output=fixed(1)))
        for weight, tokens in ((85, 10), (15, 9999))
    )
    rows = draws(Lengths(mixture=parts), library)
    # n = 4000, p = .15: 600, sigma 22.6
    assert abs(sum(r.input_tokens == 9999 for r in rows) - 600) < 91


def test_prompts_that_are_too_long_are_left_out_of_a_trace(library: TraceLibrary) -> None:
    rows = draws(Lengths(trace="mooncake_conversation", max_input=5000), library)
    assert max(r.input_tokens for r in rows) <= 5000


def test_drawn_lengths_fit_the_model(library: TraceLibrary) -> None:
    rows = draws(Lengths(input=fixed(900), output=fixed(900)), library, limit=1000)
    assert {(r.input_tokens, r.output_tokens) for r in rows} == {(900, 100)}


def test_lengths_in_order_are_those_of_the_arrivals_own_row(library: TraceLibrary) -> None:
    own = TraceRow(1.0, 77, 33)
    for in_order in (True, False):
        spec = Lengths(trace="azure2023_conv", in_order=in_order)
        source = build_lengths(spec, library, "azure2023_conv", 100_000)
        assert (source.draw(Random(1), own) == own) is in_order
