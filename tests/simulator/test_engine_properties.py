"""What holds for every engine, whatever is submitted and aborted when."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.engine import (
    Engine,
    EngineOptions,
    EngineRequest,
    EngineVariant,
    Finished,
    FirstToken,
    SchedulingOrder,
)
from tests.simulator.engine_builders import PLAIN, run_until_idle

KV_TOKENS = 16 * 40

REQUESTS = st.builds(
    EngineRequest,
    id=st.just(""),
    adapter=st.sampled_from((None, "a", "b", "c", "d")),
    prompt_tokens=st.integers(1, 300),
    output_tokens=st.integers(0, 60),
    prefix_blocks=st.sampled_from(((), (1, 2, 3), (1, 2, 4, 5), tuple(range(10, 28)))),
    priority=st.integers(-2, 2),
    choices=st.integers(1, 3),
)
ACTIONS = st.lists(st.tuples(st.floats(0.0, 0.2), REQUESTS, st.booleans()), max_size=40)
OPTIONS = st.builds(
    EngineOptions,
    max_loras=st.integers(1, 3),
    order=st.sampled_from(SchedulingOrder),
    prefix_caching=st.booleans(),
    kv_tokens=st.just(KV_TOKENS),
    variant=st.builds(
        EngineVariant,
        speculative_tokens=st.integers(1, 3),
        stall_every_s=st.sampled_from((0.0, 1.0)),
        batch_square_s=st.sampled_from((0.0, 1e-5)),
    ),
)


def _check_invariants(engine: Engine) -> None:
    scheduler = engine._scheduler
    kv, batch = scheduler.kv, scheduler.batch
    assert 0 <= kv.used <= kv.used + kv.cached <= kv.total
    assert len(engine.running_adapters()) <= engine.options.max_loras
    assert len(scheduler.running) <= engine.profile.max_num_seqs
    decoding = [s for s in scheduler.running if s not in scheduler._prefilling]
    lengths = [batch.step + s.context_offset for s in decoding]
    assert (batch.count, batch.context) == (len(decoding), sum(lengths))
    held = [-(-n // 16) for n in lengths] + [-(-s.target // 16) for s in scheduler._prefilling]
    private = sum(held) - sum(s.shared_blocks for s in scheduler.running)
    shared = {key for s in scheduler.running for key in s.shared}
    assert kv.used == private + len(shared)


@given(ACTIONS, OPTIONS, st.integers(0, 9))
def test_every_request_ends_once_and_no_limit_is_ever_exceeded(
    actions: list[tuple[float, EngineRequest, bool]], options: EngineOptions, seed: int
) -> None:
    profile = replace(PLAIN, max_num_seqs=6, max_num_batched_tokens=128, api_overhead_s=0.003)
    engine = Engine(profile=profile, rng=Random(seed), options=options)
    now = 0.0
    events = []
    aborted = set()
    for i, (delay, template, abort) in enumerate(actions):
        now += delay
        while (at := engine.next_event_at()) is not None and at <= now:
            events += engine.advance(at)
            _check_invariants(engine)
        engine.submit(replace(template, id=str(i)), now=now)
        if abort:
            engine.abort(str(i // 2), now=now)
            aborted.add(str(i // 2))
            _check_invariants(engine)
    while (at := engine.next_event_at()) is not None:
        events += engine.advance(at)
        _check_invariants(engine)

    ended = [e.request_id for e in events if isinstance(e, Finished)]
    started = [e.request_id for e in events if isinstance(e, FirstToken)]
    assert len(ended) == len(set(ended))
    assert len(started) == len(set(started))
    everything = {str(i) for i in range(len(actions))}
    assert everything - aborted <= set(ended) <= everything
    assert engine.stats.finished + engine.stats.aborted == len(actions)
    load = engine.load()
    assert (load.running, load.waiting, load.kv_usage) == (0, 0, 0.0)
    assert not engine._tracked


@given(st.integers(1, 3), st.integers(0, 9))
def test_each_request_gets_exactly_the_tokens_it_asked_for(most: int, seed: int) -> None:
    options = EngineOptions(variant=EngineVariant(speculative_tokens=most), kv_tokens=KV_TOKENS)
    engine = Engine(profile=PLAIN, rng=Random(seed), options=options)
    for i in range(8):
        request = EngineRequest(
            id=str(i), adapter=None, prompt_tokens=60 + i, output_tokens=40 + 3 * i
        )
        engine.submit(request, now=0.0)
    run_until_idle(engine)
    assert engine.stats.generated_tokens == sum(40 + 3 * i for i in range(8))


_TRACE = """
from random import Random
from gateway.simulator.engine import Engine, EngineOptions, EngineRequest, EngineVariant
from gateway.simulator.profiles import PROFILES
engine = Engine(
    profile=PROFILES["llama3.1-8b-h100-64"],
    rng=Random(5),
    options=EngineOptions(
        max_loras=2, kv_tokens=4000, variant=EngineVariant(speculative_tokens=2, stall_every_s=1.0)
    ),
)
for i in range(60):
    now = i * 0.02
    print(engine.advance(now))
    request = EngineRequest(
        id=str(i),
        adapter=(None, "a", "b", "c")[i % 4],
        prompt_tokens=200 + i,
        output_tokens=50,
        prefix_blocks=tuple(range(i % 5, 10)),
    )
    engine.submit(request, now=now)
while (at := engine.next_event_at()) is not None:
    print(engine.advance(at))
print(engine.stats, engine.load(), engine.resident_adapters())
"""


def test_the_same_seed_gives_the_same_run_whatever_the_hash_seed() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _TRACE],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "Preempted" in outputs[0]
