"""The prefix cache: what is reused, per adapter, and what is dropped when space is needed."""

from dataclasses import replace

import pytest

from gateway.simulator.engine import Engine
from tests.simulator.engine_builders import (
    QUIET,
    ends,
    first_tokens,
    make_engine,
    make_request,
    run_until_idle,
)

PREFIX = tuple(range(100, 106))  # 6 blocks of 16 tokens


def _run(engine: Engine, name: str, **kwargs: object) -> int:
    """Run one request to its end; return the prompt tokens it found in the cache."""
    before = engine.stats.prefix_hit_tokens
    engine.submit(make_request(name, **kwargs), now=engine.stats.busy_s)  # type: ignore[arg-type]
    run_until_idle(engine)
    return engine.stats.prefix_hit_tokens - before


def test_a_second_prompt_with_the_same_prefix_skips_its_prefill() -> None:
    engine = make_engine()
    assert _run(engine, "1", prompt=100, prefix=PREFIX) == 0
    assert _run(engine, "2", prompt=100, prefix=PREFIX) == 96


def test_a_prefix_is_reused_up_to_the_first_block_that_differs() -> None:
    engine = make_engine()
    _run(engine, "1", prompt=100, prefix=PREFIX)
    assert _run(engine, "2", prompt=100, prefix=(*PREFIX[:2], 1, *PREFIX[3:])) == 32


def test_at_least_one_token_of_a_fully_cached_prompt_is_computed() -> None:
    engine = make_engine()
    _run(engine, "1", prompt=96, prefix=PREFIX)
    assert _run(engine, "2", prompt=96, prefix=PREFIX) == 80


def test_the_cache_is_kept_apart_per_adapter() -> None:
    engine = make_engine(replace(QUIET, max_loras=2))
    _run(engine, "1", prompt=100, prefix=PREFIX)
    assert _run(engine, "2", prompt=100, prefix=PREFIX, adapter="a") == 0
    assert _run(engine, "3", prompt=100, prefix=PREFIX, adapter="a") == 96


def test_without_prefix_caching_nothing_is_reused_or_counted() -> None:
    engine = make_engine(replace(QUIET, prefix_caching=False))
    _run(engine, "1", prompt=100, prefix=PREFIX)
    assert _run(engine, "2", prompt=100, prefix=PREFIX) == 0
    assert engine.load().prefix_queries_total == 0.0


def test_sequences_that_share_a_prefix_at_the_same_time_hold_its_blocks_once() -> None:
    engine = make_engine()
    _run(engine, "warm", prompt=100, prefix=PREFIX)
    for name in ("1", "2", "3"):
        engine.submit(make_request(name, prompt=100, prefix=PREFIX), now=1.0)
    engine.advance(1.0)
    load = engine.load()
    assert load.kv_blocks is not None
    assert load.kv_usage == pytest.approx((6 + 3) / load.kv_blocks)
    run_until_idle(engine)
    assert engine.load().kv_usage == 0.0


def test_the_least_recently_used_prefix_is_dropped_when_blocks_are_needed() -> None:
    engine = make_engine(replace(QUIET, kv_tokens=16 * 16))
    _run(engine, "1", prompt=100, prefix=PREFIX)
    other = tuple(range(200, 206))
    _run(engine, "2", prompt=100, prefix=other)
    _run(engine, "3", prompt=100, prefix=PREFIX)
    _run(engine, "4", prompt=150, output=2)  # 10 blocks: 4 are free, 6 come from the cache
    assert _run(engine, "5", prompt=100, prefix=PREFIX) == 96
    assert _run(engine, "6", prompt=100, prefix=other) == 0


def test_the_head_of_a_prefix_outlives_its_tail() -> None:
    engine = make_engine(replace(QUIET, kv_tokens=16 * 10))
    _run(engine, "1", prompt=100, prefix=PREFIX)
    _run(engine, "2", prompt=100, output=2)  # 7 blocks: 4 are free, 3 come from the cache
    assert _run(engine, "3", prompt=100, prefix=PREFIX) == 48


def test_a_prefix_becomes_reusable_as_soon_as_its_chunk_is_scheduled() -> None:
    engine = make_engine()
    engine.submit(make_request("1", prompt=100, prefix=PREFIX), now=0.0)
    engine.advance(0.0)
    engine.submit(make_request("2", prompt=100, prefix=PREFIX), now=0.001)
    run_until_idle(engine)
    assert engine.stats.prefix_hit_tokens == 96


def test_a_preempted_sequence_finds_its_own_prefix_again() -> None:
    engine = make_engine(replace(QUIET, kv_tokens=16 * 6))
    engine.submit(make_request("old", prompt=32, output=40), now=0.0)
    engine.submit(make_request("young", prompt=48, output=30, prefix=(7, 8, 9)), now=0.0)
    events = run_until_idle(engine)
    assert engine.stats.preemptions > 0
    assert ends(events).keys() == {"old", "young"}
    assert first_tokens(events)["young"] < ends(events)["old"]
    assert engine.load().kv_usage == 0.0
