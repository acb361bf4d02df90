"""One run: a policy on a workload at a load, with a seed, in virtual time."""

from dataclasses import dataclass
from itertools import takewhile
from random import Random

from gateway.policy_benchmark.baselines.clairvoyant_greedy import Oracle
from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.policies import PolicyContext, PolicyKind, in_flight_limits
from gateway.policy_benchmark.run_metrics import RunMetrics
from gateway.policy_benchmark.run_result import RunKey, RunResult, run_result
from gateway.policy_benchmark.service_setup import BASE_MODEL, server_pool
from gateway.policy_benchmark.workload_plan import WorkloadPlan
from gateway.scheduling.policy import SchedulingPolicy
from gateway.simulator.fleet_model import Fault, FleetOptions
from gateway.simulator.virtual_fleet import VirtualFleet

COOLDOWN_S = 10.0
"""Arrivals go on so long (at most as long as was measured) after the measured window, so that its
last requests see the same load."""
DRAIN_S = 300.0
"""What has not ended so long after the last arrival is counted as missed."""
MAX_LOAD = 20.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What may vary beside workload, policy, load and seed.

    Attributes:
        gateways: number of gateways that share the pool, each with its own policy.
        gateway_delay_s: between gateway and engine, each way.
    """

    gateways: int = 1
    gateway_delay_s: float = 0.001


def check_load(load: float) -> None:
    """Refuse loads that make no sense.

    Raises:
        BenchmarkError: not within (0, `MAX_LOAD`].
    """
    if not 0.0 < load <= MAX_LOAD:
        raise BenchmarkError(f"impossible load {load:g}: expected above 0, at most {MAX_LOAD:g}")


def measured_window(plan: WorkloadPlan, load: float) -> tuple[float, float]:
    """Start and end of the arrivals that are measured, seconds of virtual time."""
    measure = plan.workload.measure
    if measure.duration is not None:
        return measure.warmup, measure.warmup + measure.duration
    assert measure.requests is not None
    return measure.warmup, measure.warmup + measure.requests / plan.offered_rps(load)


def simulate(plan: WorkloadPlan, kind: PolicyKind, key: RunKey, options: RunOptions) -> RunResult:
    """Run and judge; the same arguments give the same result in every process.

    Raises:
        BenchmarkError: an impossible load.
    """
    check_load(key.load)
    start, end = measured_window(plan, key.load)
    _check_length(plan, kind, key.load, end)
    metrics = RunMetrics(plan, start=start, end=end, forecasts=kind.forecasts)
    listeners = metrics.listeners()
    engines = plan.pool.engines(key.seed)
    oracle = Oracle(
        engines=engines,
        in_flight=listeners.in_flight,
        objectives={s.service.name: s.service.objective for s in plan.services},
        base_model=BASE_MODEL,
        delay_s=options.gateway_delay_s,
    )
    policies = [
        kind.build(_context(plan, Random(f"{key.seed} policy {index}"), oracle))
        for index in range(options.gateways)
    ]
    fleet = VirtualFleet(
        engines=engines,
        policies=policies,
        options=_fleet_options(plan, kind, options),
        rng=Random(f"{key.seed} fleet"),
        listeners=listeners,
    )
    last = end + min(COOLDOWN_S, end - start)
    requests = takewhile(lambda r: r.at < last, plan.requests(key.load, key.seed))
    fleet.run(requests, until=last + DRAIN_S)
    return run_result(
        plan,
        key,
        metrics,
        measured_s=end - start,
        engines=[engine.stats for engine in engines.values()],
    )


def _context(plan: WorkloadPlan, rng: Random, oracle: Oracle) -> PolicyContext:
    return PolicyContext(
        policy=SchedulingPolicy(pool=server_pool(plan.workload, plan.services)),
        rng=rng,
        limits=in_flight_limits(plan),
        prefill_rate=1.0 / plan.pool.profile.c3_s,
        oracle=oracle,
    )


def _check_length(plan: WorkloadPlan, kind: PolicyKind, load: float, end: float) -> None:
    expected = plan.offered_rps(load) * (end + COOLDOWN_S)
    if kind.max_requests is not None and expected > kind.max_requests:
        raise BenchmarkError(
            f"policy {kind.name} takes at most {kind.max_requests} requests, this run has about"
            f" {expected:.0f} (warm-up and {COOLDOWN_S:g} s after the end included): try fewer"
            " --servers, --requests 500 --warmup 5"
        )


def _fleet_options(plan: WorkloadPlan, kind: PolicyKind, options: RunOptions) -> FleetOptions:
    return FleetOptions(
        base_model=BASE_MODEL,
        adapters=plan.adapters,
        poll_interval_s=kind.poll_interval_s,
        gateway_delay_s=options.gateway_delay_s,
        progress_interval_s=0.25 if kind.wants_progress else None,
        faults=tuple(Fault(fault.at, fault.kill) for fault in plan.workload.faults),
    )
