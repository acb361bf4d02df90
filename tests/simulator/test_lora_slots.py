"""Adapters: slots, the skip rule, loads, and what a real engine did with a, b, c, d and 2 slots."""

from dataclasses import replace
from random import Random

import pytest

from gateway.simulator.engine import EngineOptions
from gateway.simulator.engine_model import EngineStats
from gateway.simulator.lora_slots import LoraSlots
from tests.simulator.engine_builders import (
    PLAIN,
    QUIET,
    ends,
    first_tokens,
    make_engine,
    make_request,
    replay,
    run_until_idle,
)

TWO_SLOTS = replace(QUIET, max_loras=2)


def test_requests_for_c_and_d_wait_until_a_whole_running_adapter_has_drained() -> None:
    """As recorded: four requests each for a and b, then c and d; two slots."""
    engine = make_engine(TWO_SLOTS)
    arrivals = [
        (0.01 * i, make_request(f"{adapter}{i}", adapter=adapter, output=200 + 20 * i))
        for i, adapter in enumerate("aabbaabbcd")
    ]
    events = replay(engine, arrivals)
    first, end = first_tokens(events), ends(events)
    a_drained = max(at for name, at in end.items() if name[0] == "a")
    b_drained = max(at for name, at in end.items() if name[0] == "b")
    assert first["c8"] == pytest.approx(a_drained, abs=0.4)
    assert first["c8"] >= a_drained
    assert first["d9"] >= b_drained
    assert engine.stats.max_distinct_adapters == 2
    assert engine.stats.slot_waits == 2


def test_others_overtake_a_request_that_waits_for_a_slot() -> None:
    engine = make_engine(TWO_SLOTS)
    arrivals = [
        (0.01 * i, make_request(f"{i}", adapter=adapter, output=50))
        for i, adapter in enumerate(("a", "b", "c", "a", None))
    ]
    first = first_tokens(replay(engine, arrivals))
    assert max(first["3"], first["4"]) < first["2"]


def test_a_request_for_a_running_adapter_joins_without_a_load() -> None:
    engine = make_engine(TWO_SLOTS)
    replay(engine, [(0.0, make_request("1", adapter="a")), (0.2, make_request("2", adapter="a"))])
    assert engine.stats.cold_adapter_loads == 1


def test_loading_an_adapter_stalls_the_whole_step() -> None:
    engine = make_engine(TWO_SLOTS)
    engine.submit(make_request("base", output=40), now=0.0)
    engine.submit(make_request("lora", adapter="a", output=1), now=0.1)
    events = run_until_idle(engine)
    alone = make_engine(TWO_SLOTS)
    alone.submit(make_request("base", output=40), now=0.0)
    delay = ends(events)["base"] - ends(run_until_idle(alone))["base"]
    # 2.5 x (45 + 3.3 x 16) ms = 244 ms, with a lognormal spread of .3.
    assert 0.244 / 2 < delay < 0.244 * 2


def test_the_batch_computes_slower_with_adapters_in_it() -> None:
    engine = make_engine(replace(TWO_SLOTS, lora_rank=0))
    engine.submit(make_request("a", adapter="a", prompt=16, output=101), now=0.0)
    events = run_until_idle(engine)
    took = ends(events)["a"] - first_tokens(events)["a"]
    steps = 100 * (PLAIN.c0_s + PLAIN.c1_s) + PLAIN.c2_s * sum(range(17, 117))
    assert took == pytest.approx(steps * 1.151)


@pytest.mark.parametrize(("host", "disk_loads"), [(None, 4), (3, 3)])
def test_an_adapter_evicted_from_the_gpu_comes_back_from_host_memory_if_that_holds_it(
    host: int | None, disk_loads: int
) -> None:
    slots, stats = _slots(EngineOptions(max_loras=2, max_cpu_loras=host))
    seconds = []
    for adapter in "abca":
        seconds.append(slots.start(adapter))
        slots.stop(adapter)
    assert stats.cold_adapter_loads == 4
    assert stats.disk_adapter_loads == disk_loads
    assert (seconds[-1] < 0.02) == (host == 3)


def test_the_least_recently_used_idle_adapter_is_evicted() -> None:
    slots, _ = _slots(EngineOptions(max_loras=2))
    slots.start("a")
    slots.start("b")
    slots.stop("a")
    slots.stop("b")
    slots.start("a")
    slots.stop("a")
    slots.start("c")
    assert slots.resident == ("a", "c")


def test_a_running_adapter_is_never_evicted() -> None:
    slots, _ = _slots(EngineOptions(max_loras=2))
    slots.start("a")
    for adapter in "bcd":
        slots.start(adapter)
        slots.stop(adapter)
    assert "a" in slots.resident


def test_the_first_touch_of_a_file_takes_longer_than_the_next() -> None:
    slots, _ = _slots(EngineOptions(max_loras=1))
    loads = []
    for _ in range(200):
        for adapter in "ab":
            loads.append(slots.start(adapter))
            slots.stop(adapter)
    again = sum(loads[2:]) / len(loads[2:])
    assert again == pytest.approx(0.0978, rel=0.1)  # 45 + 3.3 x 16 ms
    assert sum(loads[:2]) / 2 > 1.5 * again


def test_a_forgotten_adapter_must_be_loaded_again() -> None:
    slots, stats = _slots(EngineOptions(max_loras=2))
    slots.start("a")
    slots.forget("a")
    assert slots.resident == ("a",)
    slots.stop("a")
    slots.forget("a")
    slots.start("a")
    assert stats.disk_adapter_loads == 2


def _slots(options: EngineOptions) -> tuple[LoraSlots, EngineStats]:
    stats = EngineStats()
    return LoraSlots(options, Random(4), stats), stats
