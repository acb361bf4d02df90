"""One run of the real scheduler over arrivals of one's own choice, judged as the benchmark does."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gateway.policy_benchmark.run_metrics import RunMetrics
from gateway.policy_benchmark.service_setup import BASE_MODEL
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.workload_file import load_workload
from gateway.policy_benchmark.workload_plan import PlannedRequest, WorkloadPlan, build_plan
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.policy import SchedulingPolicy
from gateway.simulator.fleet_model import FleetOptions
from gateway.simulator.virtual_fleet import VirtualFleet

_DRAIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """Arrivals that are judged, seconds."""

    start: float
    end: float


def plan_of(name: str, traces: Path) -> WorkloadPlan:
    """The plan of a built-in workload."""
    return build_plan(load_workload(name), TraceLibrary(traces))


def judged_run(
    plan: WorkloadPlan,
    policy: SchedulingPolicy,
    requests: Iterable[PlannedRequest],
    *,
    seed: int,
    window: Window,
) -> RunMetrics:
    """Run `requests`, in order of arrival, until all have ended; judge those within the window."""
    metrics = RunMetrics(plan, start=window.start, end=window.end, forecasts=False)
    fleet = VirtualFleet(
        engines=plan.pool.engines(seed),
        policies=[build_scheduler(policy, Random(f"{seed} policy"))],
        options=FleetOptions(base_model=BASE_MODEL),
        rng=Random(f"{seed} fleet"),
        listeners=metrics.listeners(),
    )
    fleet.run(requests, until=window.end + _DRAIN_S)
    return metrics
