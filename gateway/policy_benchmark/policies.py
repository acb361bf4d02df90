"""Every policy that can be benchmarked, by name.

A name is `KIND[:VARIANT][@INTERVAL]`: `gateway`, `gateway:fcfs`, `least_kv@1s`. The interval is
that of the poller, 100 ms where neither the name nor the policy's definition says otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from gateway.policy_benchmark.baselines.clairvoyant_greedy import (
    MAX_REQUESTS,
    ClairvoyantGreedy,
    Oracle,
)
from gateway.policy_benchmark.baselines.filter_tree import FilterTree
from gateway.policy_benchmark.baselines.first_come import FirstCome
from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch, Picker
from gateway.policy_benchmark.baselines.least_outstanding import LeastOutstanding
from gateway.policy_benchmark.baselines.least_polled import LeastPolled, polled_kv, polled_queue
from gateway.policy_benchmark.baselines.lora_hash import LoraHash
from gateway.policy_benchmark.baselines.power_of_two import PowerOfTwo
from gateway.policy_benchmark.baselines.prefix_aware import PrefixAware
from gateway.policy_benchmark.baselines.probabilistic_shed import ProbabilisticShed
from gateway.policy_benchmark.baselines.queued_dispatch import QueuedDispatch, QueueOrder
from gateway.policy_benchmark.baselines.random_choice import RandomChoice
from gateway.policy_benchmark.baselines.round_robin import RoundRobin
from gateway.policy_benchmark.baselines.running_median import RunningMedian
from gateway.policy_benchmark.baselines.sticky import Sticky
from gateway.policy_benchmark.baselines.virtual_token_counter import VirtualTokenCounter
from gateway.policy_benchmark.baselines.weighted_scorers import ScorerWeights, WeightedScorers
from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.bound import DemandClass, server_rate_rps
from gateway.policy_benchmark.durations import parse_duration
from gateway.policy_benchmark.workload_plan import WorkloadPlan
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.model import BackendId, LLMService, ServiceName, is_critical
from gateway.scheduling.policy import FairnessDimension, FairnessPolicy, SchedulingPolicy
from gateway.simulator.fleet_model import FleetPolicy

DEFAULT_POLL_S = 0.1
OURS = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """What a policy may be built from.

    Attributes:
        policy: of our scheduler; its pool's services are what the baselines know, too.
        limits: requests in flight per server for baselines with a queue, >= 1.
        prefill_rate: tokens per second that one server prefills at most.
        oracle: true engines and requests, for the clairvoyant one; None where there are none.
    """

    policy: SchedulingPolicy
    rng: Random
    limits: Mapping[BackendId, int]
    prefill_rate: float
    oracle: Oracle | None = None

    @property
    def services(self) -> tuple[LLMService, ...]:
        """The services of the pool."""
        return self.policy.pool.services


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyKind:
    """One policy: how it is built, and what it needs of the fleet.

    Attributes:
        poll_interval_s: of the poller that feeds it.
        wants_progress: whether it reads progress reports.
        forecasts: whether its forecasts are to be judged.
        max_requests: the longest run it can be asked for, or None.
    """

    name: str
    build: Callable[[PolicyContext], FleetPolicy]
    poll_interval_s: float = DEFAULT_POLL_S
    wants_progress: bool = False
    forecasts: bool = False
    max_requests: int | None = None


def find_policy(name: str) -> PolicyKind:
    """The policy of this name.

    Raises:
        BenchmarkError: unknown; the message names what there is.
    """
    kind, at, interval = name.partition("@")
    known = policy_kinds()
    if kind not in known:
        raise BenchmarkError(
            f"unknown policy {kind!r}, or not built yet; there are: {', '.join(known)}"
        )
    if not at:
        return known[kind]
    try:
        seconds = parse_duration(interval)
    except ValueError as error:
        raise BenchmarkError(f"policy {name!r}: poll interval: {error}") from error
    if not isinstance(seconds, float) or seconds <= 0.0:
        raise BenchmarkError(f"policy {name!r}: the poll interval must be above 0")
    return replace(known[kind], name=name, poll_interval_s=seconds)


def policy_kinds() -> dict[str, PolicyKind]:
    """All policies by name: ours first, then the baselines."""
    kinds = [*_ours(), *_immediate(), *_queueing(), *_special()]
    return {kind.name: kind for kind in kinds}


def _ours() -> list[PolicyKind]:
    """The real scheduler: as shipped, by each fairness dimension, and with preemption."""

    def kind(name: str, change: Callable[[SchedulingPolicy], SchedulingPolicy]) -> PolicyKind:
        def build(context: PolicyContext) -> FleetPolicy:
            return build_scheduler(change(context.policy), context.rng)

        return PolicyKind(name=name, build=build, wants_progress=True, forecasts=True)

    def by(dimension: FairnessDimension) -> Callable[[SchedulingPolicy], SchedulingPolicy]:
        return lambda policy: replace(policy, fairness=FairnessPolicy(dimension=dimension))

    def preempting(policy: SchedulingPolicy) -> SchedulingPolicy:
        return replace(policy, queue=replace(policy.queue, preempts=True))

    variants = [kind(f"{OURS}:{dimension}", by(dimension)) for dimension in FairnessDimension]
    return [kind(OURS, lambda policy: policy), *variants, kind(f"{OURS}:preempt", preempting)]


def _immediate() -> list[PolicyKind]:
    def kind(
        name: str,
        picker: Callable[[PolicyContext], Picker],
        poll_interval_s: float = DEFAULT_POLL_S,
    ) -> PolicyKind:
        def build(context: PolicyContext) -> FleetPolicy:
            return ImmediateDispatch(picker(context))

        return PolicyKind(name=name, build=build, poll_interval_s=poll_interval_s)

    return [
        kind("random", lambda c: RandomChoice(c.rng)),
        kind("round_robin", lambda _: RoundRobin()),
        kind("least_outstanding", lambda c: LeastOutstanding(c.rng)),
        kind("p2c", lambda c: PowerOfTwo(c.rng)),
        kind("least_kv", lambda c: LeastPolled(polled_kv, c.rng)),
        kind("least_queue", lambda c: LeastPolled(polled_queue, c.rng)),
        kind("filter_tree", lambda c: FilterTree(_critical(c), c.rng), 0.05),
        kind("weighted_scorers", lambda c: WeightedScorers(ScorerWeights(), c.rng)),
        kind(
            "weighted_scorers:equal",
            lambda c: WeightedScorers(ScorerWeights(1.0, 1.0, 1.0), c.rng),
        ),
        kind("sticky", lambda c: Sticky(_affinity_gaps(c), c.rng)),
        kind("prefix_aware", lambda c: PrefixAware(c.rng)),
        kind("lora_hash", lambda _: LoraHash()),
        kind("probabilistic_shed", lambda c: ProbabilisticShed(_critical(c), c.rng)),
    ]


def _queueing() -> list[PolicyKind]:
    def queued(order: QueueOrder, context: PolicyContext) -> FleetPolicy:
        return QueuedDispatch(order=order, limits=context.limits, rng=context.rng)

    def vtc(context: PolicyContext) -> FleetPolicy:
        weights = {service.name: service.fairness_weight for service in context.services}
        return queued(VirtualTokenCounter(weights), context)

    return [
        PolicyKind(name="fcfs", build=lambda c: queued(FirstCome(), c)),
        PolicyKind(name="vtc", build=vtc, wants_progress=True),
    ]


def _special() -> list[PolicyKind]:
    def median(context: PolicyContext) -> FleetPolicy:
        return RunningMedian(ImmediateDispatch(LeastOutstanding(context.rng)))

    def clairvoyant(context: PolicyContext) -> FleetPolicy:
        if context.oracle is None:
            raise BenchmarkError("clairvoyant_greedy needs simulated engines")
        return ClairvoyantGreedy(context.oracle)

    return [
        PolicyKind(name="running_median", build=median, forecasts=True),
        PolicyKind(name="clairvoyant_greedy", build=clairvoyant, max_requests=MAX_REQUESTS),
    ]


def _critical(context: PolicyContext) -> list[ServiceName]:
    return [service.name for service in context.services if is_critical(service.priority)]


def _affinity_gaps(context: PolicyContext) -> dict[ServiceName, float]:
    """`tau` of sticky: tokens prefilled in half of the TTFT objective (1 s without one)."""
    gaps = {}
    for service in context.services:
        ttft_s = service.objective.ttft_s if service.objective is not None else None
        seconds = ttft_s / 2.0 if ttft_s is not None else 1.0
        gaps[service.name] = context.prefill_rate * seconds
    return gaps


def in_flight_limits(plan: WorkloadPlan) -> dict[BackendId, int]:
    """Requests per server at the closed-form bound, by Little's law.

    A request stays `output tokens * TPOT objective` seconds (without one: 50 ms); see bound.py.
    """
    limits = {}
    for backend_id, server in plan.pool.capabilities.items():
        rate = server_rate_rps(server, plan.demand)
        limits[backend_id] = max(1, round(rate * _mean_stay_s(plan.demand)))
    return limits


def _mean_stay_s(demand: tuple[DemandClass, ...]) -> float:
    stay = sum(d.moments.output * (0.05 if d.tpot_s is None else d.tpot_s) for d in demand)
    return stay / sum(d.moments.count for d in demand)
