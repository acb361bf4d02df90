"""The services of a workload as the scheduler knows them, and the prompts that each sends."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from gateway.policy_benchmark.lengths import LengthSource, build_lengths
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.traces import SOURCES, TraceRow
from gateway.policy_benchmark.workload_model import Objective, PrefixGroups, Service, Workload
from gateway.scheduling.model import (
    CRITICAL,
    NON_CRITICAL,
    LatencyObjective,
    LLMServerPool,
    LLMService,
    ServiceName,
    is_critical,
)

BASE_MODEL = "base"


@dataclass(frozen=True, slots=True)
class ServiceSetup:
    """One service of a run: an adapter's share of a workload's service, or all of it.

    Attributes:
        spec: the section of the workload file.
        share: of the mix; shares of all services add up to 1.
        adapter: LoRA adapter that answers, or None.
        lengths: where its requests' lengths come from.
        block_tokens: tokens in each block of its prefixes.
    """

    spec: Service
    service: LLMService
    share: float
    adapter: str | None
    lengths: LengthSource
    block_tokens: int

    @property
    def name(self) -> str:
        """The service's unique name."""
        return self.service.name

    @property
    def critical(self) -> bool:
        """Whether the service is Critical."""
        return is_critical(self.service.priority)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Lengths (tokens) and prefix blocks of one request."""

    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]


def build_services(
    workload: Workload, library: TraceLibrary, model_limit: int
) -> list[ServiceSetup]:
    """All services, those with adapters spread over one service per adapter."""
    total = sum(spec.share for spec in workload.services)
    setups = []
    for spec in workload.services:
        arrivals = spec.arrivals or workload.arrivals
        lengths = build_lengths(spec.lengths, library, arrivals.trace, model_limit)
        block_tokens = _block_tokens(spec)
        shares = _adapter_shares(spec)
        for index, part in enumerate(shares or [1.0]):
            name = f"{spec.name}-{index:02d}" if shares else spec.name
            service = LLMService(
                name=ServiceName(name),
                model=name if shares else BASE_MODEL,
                objective=_objective(spec.objective),
                priority=_priority(spec),
                fairness_weight=spec.fairness_weight,
                max_queue_wait_s=spec.max_queue_wait,
                max_share=spec.max_share,
            )
            adapter = name if shares else None
            share = spec.share * part / total
            setups.append(ServiceSetup(spec, service, share, adapter, lengths, block_tokens))
    return setups


def server_pool(workload: Workload, setups: Sequence[ServiceSetup]) -> LLMServerPool:
    """The pool that the gateway under test is configured with."""
    return LLMServerPool(name=workload.name, services=tuple(s.service for s in setups))


def draw_prompt(setup: ServiceSetup, index: int, rng: Random, row: TraceRow | None) -> Prompt:
    """The next prompt of service number `index`; `row` is the arrival trace's own."""
    drawn = setup.lengths.draw(rng, row)
    groups = setup.spec.prefix
    if groups is not None:
        blocks = _group_blocks(groups, index, drawn.input_tokens, rng)
        return Prompt(drawn.input_tokens, drawn.output_tokens, blocks)
    blocks = drawn.prefix_blocks
    if blocks:
        blocks = blocks[: drawn.input_tokens // setup.block_tokens]
    return Prompt(drawn.input_tokens, drawn.output_tokens, blocks)


def _group_blocks(
    groups: PrefixGroups, index: int, prompt_tokens: int, rng: Random
) -> tuple[int, ...]:
    """Block ids: those of the group's system prompt, then the question's own."""
    group = rng.randrange(groups.groups)
    prompt = rng.randrange(groups.prompts)
    system = min(groups.system_tokens, prompt_tokens) // groups.block_tokens
    total = prompt_tokens // groups.block_tokens
    first = ((index * groups.groups + group) * (groups.prompts + 1)) << 20
    own = first + ((prompt + 1) << 20)
    return (*range(first, first + system), *range(own + system, own + total))


def _block_tokens(spec: Service) -> int:
    if spec.prefix is not None:
        return spec.prefix.block_tokens
    source = SOURCES.get(spec.lengths.trace or "")
    return source.block_tokens if source is not None and source.block_tokens else 16


def _adapter_shares(spec: Service) -> list[float]:
    """Popularity of the service's adapters, adding up to 1; empty without adapters."""
    if spec.adapters is None:
        return []
    shares = list(spec.adapters.shares)
    if spec.adapters.count is not None:
        ranks = range(1, spec.adapters.count + 1)
        shares = [1.0 / rank**spec.adapters.zipf for rank in ranks]
    return [share / sum(shares) for share in shares]


def _objective(spec: Objective | None) -> LatencyObjective | None:
    if spec is None:
        return None
    return LatencyObjective(
        ttft_s=spec.ttft, tpot_s=spec.tpot, ntpot_s=spec.ntpot, percentile=spec.percentile
    )


def _priority(spec: Service) -> int:
    """Critical with an objective, Non-Critical without one, unless the file says otherwise."""
    if isinstance(spec.priority, int):
        return spec.priority
    if spec.priority is not None:
        return CRITICAL if spec.priority == "critical" else NON_CRITICAL
    return CRITICAL if spec.objective is not None else NON_CRITICAL
