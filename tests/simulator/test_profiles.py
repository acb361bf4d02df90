"""The engine against measured data and against the closed form of processor sharing."""

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean

import pytest

from gateway.simulator.engine import Engine, EngineOptions, Finished, FirstToken, kv_capacity_tokens
from gateway.simulator.profiles import PROFILES, EngineProfile
from tests.simulator.engine_builders import make_engine, make_request, replay

H100 = PROFILES["llama3.1-8b-h100-64"]
DECODE = "vllm_v1_h100_64gb_decode.csv"
KV_CAPACITY = "vllm_v1_h100_64gb_kv_capacity_vs_lora_slots.csv"


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return [r for r in csv.DictReader(file) if r["model"] == "llama-3.1-8b-instruct"]


@pytest.fixture
def calibration(shared: Path) -> Path:
    return Path(os.environ.get("GATEWAY_CALIBRATION", shared / "calibration"))


def _mean_itl_s(engine: Engine, *, running: int, prompt: int, output: int) -> float:
    """Mean inter-token latency with a constant number of sequences at staggered positions."""
    first: dict[str, float] = {}
    samples: list[float] = []
    number = running
    for i in range(running):
        length = 1 + i * output // running
        engine.submit(make_request(f"w{i}", prompt=prompt, output=length), now=0.0)
    while len(samples) < 2 * running:
        at = engine.next_event_at()
        assert at is not None
        for event in engine.advance(at):
            name = event.request_id
            if isinstance(event, FirstToken):
                first[name] = event.at
            elif isinstance(event, Finished):
                if name[0] == "r":
                    samples.append((event.at - first[name]) / (output - 1))
                number += 1
                request = make_request(f"r{number}", prompt=prompt, output=output)
                engine.submit(request, now=event.at)
    return mean(samples)


@pytest.mark.shared
def test_decode_latency_is_within_a_tenth_of_every_measured_row_without_adapters(
    calibration: Path,
) -> None:
    rows = [r for r in _rows(calibration, DECODE) if r["lora_adapters_used"] == "0"]
    assert len(rows) > 20
    errors = {}
    for row in rows:
        running, output = round(float(row["mean_running"])), int(row["out_tokens"])
        engine = make_engine(EngineOptions(), replace(H100, max_num_seqs=1000, api_overhead_s=0.0))
        itl_s = _mean_itl_s(engine, running=running, prompt=int(row["in_tokens"]), output=output)
        errors[running, output] = itl_s * 1e3 / float(row["mean_itl_ms"]) - 1
    assert max(map(abs, errors.values())) < 0.1, errors


@pytest.mark.shared
def test_kv_capacity_with_lora_slots_is_within_two_percent_of_the_measured(
    calibration: Path,
) -> None:
    for row in _rows(calibration, KV_CAPACITY):
        slots, rank = int(row["max_loras"]), int(row["max_lora_rank"])
        if row["kv_cache_tokens"] and slots <= 32 and rank <= 16:
            tokens = kv_capacity_tokens(H100, EngineOptions(max_loras=slots, lora_rank=rank))
            assert tokens == pytest.approx(int(row["kv_cache_tokens"]), rel=0.02)


def _work_s(profile: EngineProfile, prompt: int, output: int) -> float:
    prefill = prompt * profile.c3_s + profile.c4_s * prompt**2 / 2
    return prefill + output * (profile.c1_s + profile.c2_s * (prompt + output / 2))


def _poisson(rng: Random, rate: float, count: int) -> Iterator[float]:
    at = 0.0
    for _ in range(count):
        at += rng.expovariate(rate)
        yield at


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("load", "count"), [(0.3, 5_000), (0.5, 10_000), (0.8, 40_000)])
def test_time_per_token_follows_processor_sharing(load: float, count: int, seed: int) -> None:
    """TPOT = c0 / (1 - load), at `count` Poisson arrivals of 500 / 150 tokens.

    The load is that of the arrivals as drawn: near saturation the form turns a half percent more
    of them into two percent more time. The limit of 256 sequences is lifted: it would bind at
    .8, and the form knows no limits.
    """
    prompt, output = 500, 150
    work_s = _work_s(H100, prompt, output)
    arrivals = list(_poisson(Random(seed), load / work_s, count))
    engine = make_engine(EngineOptions(), replace(H100, max_num_seqs=1024), seed=seed)
    events = replay(
        engine,
        ((at, make_request(str(i), prompt=prompt, output=output)) for i, at in enumerate(arrivals)),
    )
    warm = count // 10
    first = {e.request_id: e.at for e in events if isinstance(e, FirstToken)}
    tpot = [
        (e.at - first[e.request_id]) / (output - 1)
        for e in events
        if isinstance(e, Finished) and int(e.request_id) > warm
    ]
    drawn_load = (count - 1 - warm) / (arrivals[-1] - arrivals[warm]) * work_s
    assert mean(tpot) == pytest.approx(H100.c0_s / (1 - drawn_load), rel=0.03)


def test_every_profile_is_known_by_its_own_name() -> None:
    assert [name for name, profile in PROFILES.items() if profile.name != name] == []
    assert len(PROFILES) == 6


def test_a_prefill_of_8192_tokens_on_two_h100_takes_the_measured_400_ms() -> None:
    profile = PROFILES["qwen3-32b-2xh100"]
    assert profile.c3_s * 8192 + profile.c4_s * 8192**2 / 2 == pytest.approx(0.40, rel=0.1)


@pytest.mark.parametrize("name", list(PROFILES))
def test_lora_slots_leave_room_in_the_kv_cache_of_every_profile(name: str) -> None:
    profile = PROFILES[name]
    with_slots = kv_capacity_tokens(profile, EngineOptions(max_loras=4))
    assert profile.kv_tokens * 0.7 < with_slots < profile.kv_tokens
