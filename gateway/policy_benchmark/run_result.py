"""One run as the report's JSON object."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.policy_benchmark.run_metrics import RunMetrics
from gateway.policy_benchmark.service_tally import BUCKET_S, ServiceTally
from gateway.policy_benchmark.workload_plan import WorkloadPlan
from gateway.simulator.engine import EngineStats

RunResult = dict[str, Any]
"""A run; see docs/benchmarks.md for its keys."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """What was run."""

    policy: str
    load: float
    seed: int


def run_result(
    plan: WorkloadPlan,
    key: RunKey,
    metrics: RunMetrics,
    *,
    measured_s: float,
    engines: Iterable[EngineStats],
) -> RunResult:
    """Sum up a run; `measured_s` is the length of the window that arrivals were counted in."""
    workload = plan.workload
    total = _merged(metrics.services)
    critical = _merged(
        t for t, s in zip(metrics.services, plan.services, strict=True) if s.critical
    )
    others = _merged(
        t for t, s in zip(metrics.services, plan.services, strict=True) if not s.critical
    )
    goodput = total.met / measured_s
    named = {s.name: t for s, t in zip(plan.services, metrics.services, strict=True)}
    return {
        "workload": workload.name,
        "profile": plan.pool.profile.name,
        "servers": workload.servers.count,
        "policy": key.policy,
        "load": key.load,
        "seed": key.seed,
        "offered_rps": total.offered / measured_s,
        "bound_rps": plan.bound_rps,
        "attainment": total.attainment,
        "attainment_critical": critical.attainment,
        "attainment_non_critical": others.attainment,
        "goodput_rps": goodput,
        "token_goodput": total.met_tokens / measured_s,
        "shed_rate": total.refused / total.offered if total.offered else None,
        "failed": total.failed,
        "fraction_of_bound": goodput / plan.bound_rps,
        "inversions": metrics.inversions,
        "wasted_work": total.wasted_s / total.work_s if total.work_s else None,
        "attainment_by_size": [m / n if n else None for n, m in metrics.deciles],
        "infeasible": total.infeasible,
        "services": {name: _service(tally) for name, tally in named.items()},
        "fairness": _fairness(plan, metrics.services),
        **_times(total),
        "predictor": metrics.predictions.summary(),
        **_engine_totals(engines),
        "offered": total.offered,
        "met": total.met,
        "blocks": total.blocks(),
        "ttft_cdf": total.ttft.cumulative() if total.ttft.count else [],
        "adherence": {name: tally.series() for name, tally in named.items()},
        "servers_over_time": metrics.server_samples,
        "requests": metrics.seen,
    }


def _merged(tallies: Iterable[ServiceTally]) -> ServiceTally:
    total = ServiceTally()
    for tally in tallies:
        total.merge(tally)
    return total


def _times(tally: ServiceTally) -> dict[str, Mapping[str, float | None]]:
    return {
        "ttft_s": tally.ttft.percentiles(),
        "tpot_s": tally.tpot.percentiles(),
        "ntpot_s": tally.ntpot.percentiles(),
    }


def _service(tally: ServiceTally) -> dict[str, Any]:
    return {
        "attainment": tally.attainment,
        "offered": tally.offered,
        "met": tally.met,
        "refused": tally.refused,
        "failed": tally.failed,
        "infeasible": tally.infeasible,
        "done": [(key * BUCKET_S, tally.done[key]) for key in sorted(tally.done)],
        **_times(tally),
    }


def _fairness(plan: WorkloadPlan, tallies: list[ServiceTally]) -> dict[str, float | None]:
    """Gap in attainment, Jain's index on attainment / target, worst deficit, VTC difference.

    Jain's index: (sum x)^2 / (n * sum x^2) (Jain, Chiu, Hawe 1984). The VTC difference is the
    largest between two services' tokens served per weight, 1 per input and 2 per output token
    (Sheng et al., OSDI'24).
    """
    attained, normalised, deficit, served = [], [], 0.0, []
    for setup, tally in zip(plan.services, tallies, strict=True):
        if tally.attainment is None:
            continue
        objective = setup.service.objective
        target = 1.0 if objective is None else objective.percentile
        attained.append(tally.attainment)
        normalised.append(tally.attainment / target)
        deficit = max(deficit, tally.largest_deficit(target))
        served.append(tally.served_tokens / setup.service.fairness_weight)
    if not attained:
        return {"gap": None, "jain": None, "largest_deficit": None, "service_difference": None}
    squares = sum(x * x for x in normalised)
    return {
        "gap": max(attained) - min(attained),
        "jain": sum(normalised) ** 2 / (len(normalised) * squares) if squares else 1.0,
        "largest_deficit": deficit,
        "service_difference": max(served) - min(served),
    }


def _engine_totals(engines: Iterable[EngineStats]) -> dict[str, Any]:
    stats = list(engines)
    queried = sum(s.prefix_query_tokens for s in stats)
    hits = sum(s.prefix_hit_tokens for s in stats)
    return {
        "lora": {
            "cold_loads": sum(s.cold_adapter_loads for s in stats),
            "slot_waits": sum(s.slot_waits for s in stats),
            "max_distinct_adapters": max((s.max_distinct_adapters for s in stats), default=0),
        },
        "prefix": {"hit_tokens": hits, "hit_ratio": hits / queried if queried else None},
        "preemptions": sum(s.preemptions for s in stats),
    }
