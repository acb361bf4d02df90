"""A workload made ready to run: its pool, its services, its bound, and its stream of requests."""

import heapq
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from gateway.policy_benchmark.arrivals import Arrival, arrival_stream
from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.bound import (
    ClassMoments,
    DemandClass,
    ServerCapability,
    is_feasible,
    pool_rate_rps,
    request_work_s,
)
from gateway.policy_benchmark.pool_setup import PoolSetup, build_pool
from gateway.policy_benchmark.service_setup import (
    Prompt,
    ServiceSetup,
    build_services,
    draw_prompt,
)
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.workload_model import Workload
from gateway.scheduling.model import InferenceRequest, RequestId
from gateway.simulator.fleet_model import FleetRequest

SAMPLE_REQUESTS = 20_000
"""Requests drawn to measure a workload's mean work, hit ratio and size deciles."""
OVERHEAD_S = 0.002
"""What the gateway adds to the time to first token of a request alone on an idle server."""


@dataclass(frozen=True, slots=True)
class PlannedRequest(FleetRequest):
    """A request with what its judgement needs.

    Attributes:
        service_index: number of its service in the plan.
        feasible: whether it could meet its objective alone on the fastest idle server.
        work_s: its work on the fastest server without any prefix hit, in seconds of steps.
    """

    service_index: int = 0
    feasible: bool = True
    work_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """Everything about a workload that does not depend on policy, load and seed.

    Attributes:
        bound_rps: closed-form bound: feasible requests per second.
        feasible_share: of all requests.
        hit_ratio: of prompt tokens, in an infinite prefix cache.
        work_deciles: nine boundaries of `PlannedRequest.work_s`, of feasible requests.
        demand: the feasible requests of each service, as the bound sees them.
    """

    workload: Workload
    services: tuple[ServiceSetup, ...]
    pool: PoolSetup
    library: TraceLibrary
    bound_rps: float
    feasible_share: float
    hit_ratio: float
    work_deciles: tuple[float, ...]
    demand: tuple[DemandClass, ...]

    @property
    def adapters(self) -> tuple[str, ...]:
        """All adapters that the workload uses."""
        return tuple(s.adapter for s in self.services if s.adapter is not None)

    @property
    def traces(self) -> frozenset[str]:
        """Names of the traces that the workload reads."""
        workload = self.workload
        lengths = [spec.lengths for spec in workload.services]
        for each in lengths:  # grows while it is walked: mixtures may be nested
            lengths.extend(part.lengths for part in each.mixture)
        arrivals = [workload.arrivals, *(s.arrivals for s in workload.services if s.arrivals)]
        names = [each.trace for each in lengths] + [each.trace for each in arrivals]
        return frozenset(name for name in names if name is not None)

    def offered_rps(self, load: float) -> float:
        """Total rate, infeasible requests included, of a load in units of the bound."""
        return load * self.bound_rps / self.feasible_share

    def requests(self, load: float, seed: int) -> Iterator[PlannedRequest]:
        """Requests in order of arrival, the same ones for every policy; endless."""
        return _stream(self, load, seed)


def build_plan(workload: Workload, library: TraceLibrary) -> WorkloadPlan:
    """Measure a sample of the workload, the same for every load and seed.

    Raises:
        BenchmarkError: unknown names, or a workload that the pool cannot serve at all.
    """
    pool = build_pool(workload.servers, _count_adapters(workload))
    services = tuple(build_services(workload, library, pool.profile.max_model_len))
    sample = _measure(workload, services, pool, library)
    if sample.feasible == 0:
        raise BenchmarkError(
            f"workload {workload.name}: no request could meet its objective, even alone on an"
            f" idle server of profile {pool.profile.name}"
        )
    capabilities = list(pool.capabilities.values())
    demand = tuple(
        DemandClass(moments, None if s.service.objective is None else s.service.objective.tpot_s)
        for s, moments in zip(services, sample.moments, strict=True)
        if moments.count
    )
    bound_rps = pool_rate_rps(capabilities, demand)
    if bound_rps <= 0.0:
        raise BenchmarkError(
            f"workload {workload.name}: an idle step of {pool.profile.name} is longer than a TPOT"
            " objective"
        )
    works = sorted(sample.works)
    return WorkloadPlan(
        workload=workload,
        services=services,
        pool=pool,
        library=library,
        bound_rps=bound_rps,
        feasible_share=sample.feasible / SAMPLE_REQUESTS,
        hit_ratio=1.0 - sample.uncached / sample.prompt,
        work_deciles=tuple(works[len(works) * k // 10] for k in range(1, 10)),
        demand=demand,
    )


def fastest(pool: PoolSetup) -> ServerCapability:
    """The server on which a request alone would be quickest."""
    return max(pool.capabilities.values(), key=lambda server: server.speed)


def _count_adapters(workload: Workload) -> int:
    return sum(
        (spec.adapters.count or len(spec.adapters.shares))
        for spec in workload.services
        if spec.adapters is not None
    )


@dataclass(slots=True)
class _Sample:
    moments: list[ClassMoments]
    works: list[float] = field(default_factory=list)
    feasible: int = 0
    prompt: int = 0
    uncached: int = 0


def _measure(
    workload: Workload,
    services: tuple[ServiceSetup, ...],
    pool: PoolSetup,
    library: TraceLibrary,
) -> _Sample:
    """Draw requests by the services' shares and sum up what the bound needs."""
    rng = Random("sample")
    trace = workload.arrivals.trace
    rows = library.rows(trace) if trace is not None else None
    cumulative = list(accumulate(s.share for s in services))
    server = fastest(pool)
    sample = _Sample([ClassMoments() for _ in services])
    seen: set[tuple[str | None, int]] = set()
    for number in range(SAMPLE_REQUESTS):
        index = min(bisect(cumulative, rng.random()), len(services) - 1)
        setup = services[index]
        row = rows[number % len(rows)] if rows is not None else None
        prompt = draw_prompt(setup, index, rng, row)
        uncached = _uncached(prompt, setup, seen)
        if not _feasible(server, setup, prompt):
            continue
        sample.feasible += 1
        sample.prompt += prompt.prompt_tokens
        sample.uncached += uncached
        sample.moments[index].add(
            prompt=prompt.prompt_tokens, uncached=uncached, output=prompt.output_tokens
        )
        sample.works.append(_work_s(server, prompt))
    return sample


def _uncached(prompt: Prompt, setup: ServiceSetup, seen: set[tuple[str | None, int]]) -> int:
    """Prompt tokens outside an infinite prefix cache, at least one; adds the prompt to it."""
    hits = 0
    for block in prompt.blocks:
        if (setup.adapter, block) in seen:
            hits += 1
        else:
            seen.add((setup.adapter, block))
    return max(1, prompt.prompt_tokens - hits * setup.block_tokens)


def _feasible(server: ServerCapability, setup: ServiceSetup, prompt: Prompt) -> bool:
    return is_feasible(
        server,
        setup.service.objective,
        prompt=prompt.prompt_tokens,
        output=prompt.output_tokens,
        overhead_s=OVERHEAD_S,
    )


def _work_s(server: ServerCapability, prompt: Prompt) -> float:
    return request_work_s(
        server,
        prompt=prompt.prompt_tokens,
        uncached=prompt.prompt_tokens,
        output=prompt.output_tokens,
    )


def _stream(plan: WorkloadPlan, load: float, seed: int) -> Iterator[PlannedRequest]:
    """Merge the shared stream and the services' own ones by time."""
    published = plan.workload.load_unit == "published"
    rate = load if published else plan.offered_rps(load)
    sources: list[Iterator[tuple[float, int, PlannedRequest]]] = []
    shared = [i for i, s in enumerate(plan.services) if s.spec.arrivals is None]
    if shared:
        share = sum(plan.services[i].share for i in shared)
        arrivals = _arrivals(plan, rate if published else rate * share, seed, "shared", shared[0])
        sources.append(_requests_of(plan, shared, arrivals, seed, len(sources)))
    for index, setup in enumerate(plan.services):
        if setup.spec.arrivals is not None:
            own = rate if published else rate * setup.share
            arrivals = _arrivals(plan, own, seed, setup.name, index)
            sources.append(_requests_of(plan, [index], arrivals, seed, len(sources)))
    for _, _, planned in heapq.merge(*sources, key=lambda item: item[:2]):
        yield planned


def _arrivals(
    plan: WorkloadPlan, rate: float, seed: int, label: str, index: int
) -> Iterator[Arrival]:
    spec = plan.services[index].spec.arrivals or plan.workload.arrivals
    rng = Random(f"{seed} arrivals {label}")
    return arrival_stream(spec, rate_rps=rate, rng=rng, library=plan.library)


def _requests_of(
    plan: WorkloadPlan, indices: list[int], arrivals: Iterator[Arrival], seed: int, source: int
) -> Iterator[tuple[float, int, PlannedRequest]]:
    rng = Random(f"{seed} requests {source}")
    make = _maker(plan, rng)
    cumulative = list(accumulate(plan.services[i].share for i in indices))
    for number, (at, row) in enumerate(arrivals):
        place = bisect(cumulative, rng.random() * cumulative[-1])
        index = indices[min(place, len(indices) - 1)]
        prompt = draw_prompt(plan.services[index], index, rng, row)
        yield at, source, make(f"{source}-{number}", at, index, prompt)


def _maker(plan: WorkloadPlan, rng: Random) -> Callable[[str, float, int, Prompt], PlannedRequest]:
    """Make planned requests; the prompt's bytes vary around 4.2 per token, as texts do."""
    server = fastest(plan.pool)

    def make(request_id: str, at: float, index: int, prompt: Prompt) -> PlannedRequest:
        setup = plan.services[index]
        size = max(1, round(prompt.prompt_tokens * rng.uniform(3.6, 4.8)))
        request = InferenceRequest(
            id=RequestId(request_id),
            service=setup.service.name,
            model=setup.service.model,
            prompt_bytes=size,
            body_bytes=size + 200,
            max_tokens=setup.spec.max_tokens,
            prefix_blocks=prompt.blocks,
            prefix_block_bytes=max(1, round(setup.block_tokens * size / prompt.prompt_tokens)),
        )
        return PlannedRequest(
            at,
            request,
            prompt.prompt_tokens,
            prompt.output_tokens,
            setup.block_tokens,
            service_index=index,
            feasible=_feasible(server, setup, prompt),
            work_s=_work_s(server, prompt),
        )

    return make
