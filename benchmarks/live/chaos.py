"""A pool under load and a seeded schedule of faults, one at a time: what its clients saw of it."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.live.chaos_faults import FAULTS, FREEZE, Injury, injure
from benchmarks.live.findings import Finding, equal
from benchmarks.live.rough_site import RoughSite, rough_site
from benchmarks.live.steady_load import (
    BROKEN,
    CRITICAL,
    CUT,
    HUNG,
    NON_CRITICAL,
    OK,
    WRONG,
    LoadPlan,
    SteadyLoad,
    services,
)

_STALL_S = 15.0
_THAW_S = 10.0
_CONTINUED = "llm_gateway_continuations_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """How long, on how many servers, and how hard.

    Attributes:
        lasts_s: of the whole check; a fault that has begun is ended properly.
        fault_s: of each fault; a frozen server stays so for at least the time it takes to notice.
        continues: let broken streams be continued (`continue_broken_streams`).
    """

    lasts_s: float
    fault_s: float
    rate: float
    servers: int = 4
    continues: bool = False
    seed: int = 1


def settings(plan: ChaosPlan) -> dict[str, object]:
    """What the gateway is told: a server that hangs is found out within `_STALL_S`."""
    served = services()
    if plan.continues:
        served = [{**service, "continue_broken_streams": True} for service in served]
    return {
        "stall_timeout": _STALL_S,
        "probe_timeout": 2,
        "health_failures_to_leave": 2,
        "max_requests_per_backend": 64,
        "pools": [{"name": "pool", "services": served}],
    }


async def check_chaos(plan: ChaosPlan, folder: Path) -> list[Finding]:
    """Run the load and the faults; tell what became of the requests."""
    async with rough_site(
        servers=plan.servers, time_scale=1.0, settings=settings(plan), folder=folder
    ) as site:
        load = SteadyLoad(site, LoadPlan(rate=plan.rate, seed=plan.seed))
        await load.learn_answers()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(stop))
            injuries = await _injuries(site, plan)
            stop.set()
        (folder / "failed.txt").write_text("\n".join(load.failed), encoding="utf-8")
        findings = await _service_rows(site, load, plan)
        findings += _fault_rows(injuries)
        findings.append(await _left_over(site))
    return findings


async def _injuries(site: RoughSite, plan: ChaosPlan) -> list[Injury]:
    """One fault after another, in an order and on servers that the seed decides."""
    rng = Random(plan.seed)
    clock = asyncio.get_running_loop().time
    ends_at = clock() + plan.lasts_s
    waiting: list[int] = []
    injuries = []
    while clock() < ends_at:
        if not waiting:
            waiting = list(range(len(FAULTS)))
            rng.shuffle(waiting)
        fault = FAULTS[waiting.pop()]
        lasts_s = max(plan.fault_s, 12.0) if fault[0] == FREEZE else plan.fault_s
        injuries.append(await injure(site, rng.randrange(plan.servers), fault, lasts_s))
        await site.all_used()
    return injuries


async def _service_rows(site: RoughSite, load: SteadyLoad, plan: ChaosPlan) -> list[Finding]:
    rows = []
    for service in (CRITICAL, NON_CRITICAL):
        results = load.tally.results[service]
        offered = load.tally.offered(service)
        retried = await site.metric("llm_gateway_retries_total", service=service)
        continued = await site.metric(_CONTINUED, service=service)
        rows += [
            Finding(f"{service}: offered", str(offered), "", ok=offered > 0),
            Finding(f"{service}: answered rightly", str(results[OK]), "", ok=results[OK] > 0),
            Finding(f"{service}: attempts after the first", f"{retried:.0f}", "", ok=True),
            Finding(f"{service}: streams continued", f"{continued:.0f}", "", ok=True),
            equal(f"{service}: without a proper end", results[CUT] + results[HUNG], 0),
            equal(f"{service}: with a wrong text", results[WRONG], 0),
            _failed(service, results, plan),
        ]
    return rows


def _failed(service: str, results: Counter[str], plan: ChaosPlan) -> Finding:
    """The rest, by reason. Only streams that had begun may fail, where they are not continued."""
    failed = {name: count for name, count in results.items() if name != OK}
    told = ", ".join(f"{name}: {count}" for name, count in sorted(failed.items())) or "none"
    if service == NON_CRITICAL:
        return Finding(f"{service}: failed", told, "", ok=True)
    if plan.continues:
        return Finding(f"{service}: failed", told, "none", ok=not failed)
    return Finding(f"{service}: failed", told, f"at most: {BROKEN}", ok=set(failed) <= {BROKEN})


def _fault_rows(injuries: list[Injury]) -> list[Finding]:
    rows = []
    for name, _, shows in FAULTS:
        met = [injury for injury in injuries if injury.fault == name]
        if not met:
            continue
        noticed = [injury.noticed_s for injury in met if injury.noticed_s is not None]
        back = [injury.back_s for injury in met if injury.back_s is not None]
        told = f"{len(met)} times"
        if noticed:
            told += f", noticed after at most {max(noticed):.1f} s"
        if back:
            told += f", used again after at most {max(back):.1f} s"
        is_freeze = name == FREEZE
        wanted = f"noticed within {_STALL_S:g} s, used within {_THAW_S:g} s" if is_freeze else ""
        ok = len(back) == len(met) and (not shows or len(noticed) == len(met))
        if is_freeze:
            ok = ok and max(noticed) <= _STALL_S and max(back) <= _THAW_S
        rows.append(Finding(f"fault: {name}", told, wanted, ok=ok))
    return rows


async def _left_over(site: RoughSite) -> Finding:
    state = await site.state()
    counted = {
        name: state[name] for name in ("tracked_requests", "queued_requests", "queued_bytes")
    }
    counted["at servers"] = sum(backend["requests"] for backend in state["backends"])
    return equal("left over", {name: n for name, n in counted.items() if n}, {})
