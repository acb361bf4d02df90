"""Hours in minutes: steady load with clients that leave; memory and open files must stay flat."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.live.arrival_pace import ArrivalPace
from benchmarks.live.findings import Finding, equal
from benchmarks.live.rough_site import RoughSite, rough_site
from benchmarks.live.steady_load import (
    CRITICAL,
    CUT,
    HUNG,
    LEFT,
    NON_CRITICAL,
    OK,
    WRONG,
    LoadPlan,
    SteadyLoad,
    services,
)

_SAMPLE_S = 2.0
_IDLE_S = 5.0
"""After which the gateway has closed idle connections to servers: it keeps them for 3 s."""
_FLAT = 0.05
_PATIENCE_S = 300.0
_SETTLED_SHARE = 1 / 3
"""The first third is not judged: caches fill, estimates settle."""
_FIRST_TIME_IN_PLACE_S = 0.7
_SHARE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPlan:
    """How long and how hard; `slots` are the places of each server, so that queues form.

    Attributes:
        share: of all places that is to be in use; requests arrive as fast as that needs.
    """

    minutes: float
    share: float = 0.8
    servers: int = 3
    slots: int = 8
    cancelled: float = 0.05
    seed: int = 1

    @property
    def places(self) -> int:
        """Of all servers."""
        return self.servers * self.slots


class _Sample(NamedTuple):
    at: float
    resident: int
    descriptors: int
    in_flight: int
    queued: int


async def check_soak(plan: SoakPlan, folder: Path) -> list[Finding]:
    """Run the load, look at the gateway's process every few seconds, and judge."""
    settings: dict[str, object] = {
        "max_requests_per_backend": plan.slots,
        "queue_timeout": "2min",  # a machine that is busy otherwise is no failure of the gateway
        "pools": [{"name": "pool", "services": services()}],
    }
    async with rough_site(
        servers=plan.servers, time_scale=1.0, settings=settings, folder=folder
    ) as site:
        pace = ArrivalPace(wanted=plan.share * plan.places, time_in_place_s=_FIRST_TIME_IN_PLACE_S)
        load = SteadyLoad(
            site,
            LoadPlan(
                rate=pace.rate, cancelled=plan.cancelled, patience_s=_PATIENCE_S, seed=plan.seed
            ),
        )
        await load.learn_answers()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(stop))
            samples = await _watch(site, plan.minutes * 60, load, pace, folder)
            stop.set()
        await asyncio.sleep(_IDLE_S)
        findings = [*_load_rows(load), *_flat_rows(plan, samples), await _left_over(site)]
        idle = site.descriptors()
        findings.append(Finding("open files at the end", str(idle), "", ok=True))
    return findings


async def _watch(
    site: RoughSite, seconds: float, load: SteadyLoad, pace: ArrivalPace, folder: Path
) -> list[_Sample]:
    """Look at the gateway's process for so long, and let requests arrive at the pace."""
    clock = asyncio.get_running_loop().time
    began_at = looked_at = clock()
    samples: list[_Sample] = []
    ended = 0
    with (folder / "samples.csv").open("w", encoding="utf-8") as out:
        out.write("seconds,resident_bytes,descriptors,in_flight,queued,requests_per_100_s\n")
        while clock() - began_at < seconds:
            await asyncio.sleep(_SAMPLE_S)
            state = await site.state()
            in_flight = sum(backend["requests"] for backend in state["backends"])
            now, before = clock(), ended
            ended = load.tally.ended
            pace.observe(in_use=in_flight, ended=ended - before, seconds=now - looked_at)
            load.rate, looked_at = pace.rate, now
            sample = _Sample(
                now - began_at,
                site.resident_bytes(),
                site.descriptors(),
                in_flight,
                state["queued_requests"],
            )
            samples.append(sample)
            out.write(",".join(f"{value:.0f}" for value in (*sample, 100 * pace.rate)) + "\n")
            out.flush()
    return samples


def _load_rows(load: SteadyLoad) -> list[Finding]:
    rows = []
    for service in (CRITICAL, NON_CRITICAL):
        results = load.tally.results[service]
        told = ", ".join(f"{name}: {count}" for name, count in sorted(results.items()))
        bad = results[CUT] + results[HUNG] + results[WRONG]
        rows.append(Finding(f"{service}: requests", told, "all end well", ok=not bad))
        if service == CRITICAL:
            others = results.total() - results[OK] - results[LEFT]
            rows.append(equal(f"{service}: refused or failed", others, 0))
    return rows


def _flat_rows(plan: SoakPlan, samples: list[_Sample]) -> list[Finding]:
    judged = samples[int(len(samples) * _SETTLED_SHARE) :]
    half = len(judged) // 2
    memory = [sample.resident for sample in judged]
    early, late = _mean(memory[:half]), _mean(memory[half:])
    grown = late / early - 1
    spread = max(memory) / min(memory) - 1
    # One to its client, and one to its server where it has one.
    files = [sample.descriptors - 2 * sample.in_flight - sample.queued for sample in judged]
    files_grown = _mean(files[half:]) - _mean(files[:half])
    busy = _mean([sample.in_flight for sample in judged]) / plan.places
    least = plan.share - _SHARE_TOLERANCE
    return [
        Finding(
            "share of places in use",
            f"{busy:.3f}",
            f"{plan.share:.2f}, at least {least:.2f}",
            ok=busy >= least,
        ),
        Finding(
            "memory over the last two thirds",
            f"{min(memory) / 1e6:.1f} to {max(memory) / 1e6:.1f} MB,"
            f" {grown:+.1%} from the first to the second half",
            f"within {_FLAT:.0%}",
            ok=spread <= _FLAT,
        ),
        Finding(
            "open files that belong to no request",
            f"{min(files)} to {max(files)}, {files_grown:+.1f} from half to half",
            "do not grow",
            ok=files_grown <= max(5.0, _FLAT * abs(_mean(files[:half]))),
        ),
    ]


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)


async def _left_over(site: RoughSite) -> Finding:
    async with asyncio.timeout(60):
        while True:
            state = await site.state()
            left = {
                name: state[name]
                for name in ("tracked_requests", "queued_requests", "queued_bytes")
                if state[name]
            }
            for number, backend in enumerate(state["backends"]):
                for name in ("requests", "sequences", "decoding", "context_tokens"):
                    if backend[name]:
                        left[f"server {number}: {name}"] = backend[name]
            if not left:
                return equal("counters not at zero at the end", left, {})
            await asyncio.sleep(_SAMPLE_S)
