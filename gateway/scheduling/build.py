"""Builds the one scheduler object that the live gateway and the simulator both run."""

from random import Random
from typing import assert_never

from gateway.scheduling.admission_queue import AdmissionQueue
from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_picker import BackendPicker, LeastOutstandingPicker
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.critical_headroom import CriticalHeadroom
from gateway.scheduling.drain_rate import DrainRate
from gateway.scheduling.fairness import (
    EarliestDeadlineFirst,
    FirstComeFirstServed,
    LargestBurnFirst,
    LeastServedFirst,
    RailedOrder,
    ServiceOrder,
)
from gateway.scheduling.latency_picker import LatencyPicker
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.policy import (
    FairnessDimension,
    FairnessPolicy,
    PickerKind,
    PickerPolicy,
    SchedulingPolicy,
)
from gateway.scheduling.retry_budget import RetryBudget
from gateway.scheduling.scheduler import Scheduler
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.service_directory import ServiceDirectory
from gateway.scheduling.shortlist import Shortlist
from gateway.scheduling.slo_adherence import SloAdherence
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.sub_flows import SubFlows
from gateway.scheduling.token_shares import TokenShares


def build_scheduler(policy: SchedulingPolicy, rng: Random) -> Scheduler:
    """Wire a scheduler for one pool. `rng` is the only source of its random draws."""
    adherence = SloAdherence(policy=policy.fairness)
    predictor = LatencyPredictor(prior=StepTimePrior())
    ledger = BackendLedger(
        default_max_loras=policy.capacity.default_max_loras,
        chunk_budget_tokens=policy.capacity.chunk_budget_tokens,
    )

    headroom = CriticalHeadroom(ledger=ledger, predictor=predictor)

    def make_rules(changed: SchedulingPolicy, kept: Rules | None) -> Rules:
        capacity = Capacity(policy=changed.capacity, predictor=predictor, headroom=headroom)
        shortlist = None
        if changed.picker.kind is PickerKind.LATENCY:
            shortlist = Shortlist(
                predictor=predictor,
                capacity=capacity,
                ledger=ledger,
                policy=changed.picker,
                rng=rng,
            )
        return Rules(
            policy=changed,
            capacity=capacity,
            order=_kept_order(changed, kept) or _railed_order(changed, adherence),
            picker=_backend_picker(changed.picker, rng),
            retries=_kept_retries(changed, kept) or RetryBudget(policy=changed.retry),
            shortlist=shortlist,
        )

    knowledge = Knowledge(
        ledger=ledger,
        predictor=predictor,
        queue=AdmissionQueue(policy=policy.queue),
        services=ServiceDirectory(pool=policy.pool, rng=rng),
        drain_rate=DrainRate(rng=rng),
        adherence=adherence,
    )
    return Scheduler(knowledge=knowledge, rules=make_rules(policy, None), make_rules=make_rules)


def _kept_order(policy: SchedulingPolicy, kept: Rules | None) -> ServiceOrder | None:
    """The order that was followed so far, with what it has counted, if it is still asked for."""
    if kept is None or kept.policy.fairness != policy.fairness:
        return None
    return kept.order if _has_ceilings(kept.policy) == _has_ceilings(policy) else None


def _kept_retries(policy: SchedulingPolicy, kept: Rules | None) -> RetryBudget | None:
    """What is left of the retries, if nothing about them has changed."""
    return None if kept is None or kept.policy.retry != policy.retry else kept.retries


def _has_ceilings(policy: SchedulingPolicy) -> bool:
    return any(service.max_share is not None for service in policy.pool.services)


def _railed_order(policy: SchedulingPolicy, adherence: SloAdherence) -> ServiceOrder:
    order = _service_order(policy.fairness, adherence)
    if not _has_ceilings(policy) and not policy.fairness.sub_flows:
        return order
    return RailedOrder(
        order=order,
        shares=TokenShares(),
        sub_flows=SubFlows() if policy.fairness.sub_flows else None,
    )


def _service_order(policy: FairnessPolicy, adherence: SloAdherence) -> ServiceOrder:
    match policy.dimension:
        case FairnessDimension.SLO_ADHERENCE:
            return LargestBurnFirst(policy=policy, adherence=adherence)
        case FairnessDimension.TOKENS:
            return LeastServedFirst(tokens_count=True)
        case FairnessDimension.REQUESTS:
            return LeastServedFirst(tokens_count=False)
        case FairnessDimension.DEADLINE:
            return EarliestDeadlineFirst()
        case FairnessDimension.FCFS:
            return FirstComeFirstServed()
        case _:
            assert_never(policy.dimension)


def _backend_picker(policy: PickerPolicy, rng: Random) -> BackendPicker:
    match policy.kind:
        case PickerKind.LATENCY:
            return LatencyPicker(policy=policy, rng=rng)
        case PickerKind.LEAST_OUTSTANDING:
            return LeastOutstandingPicker(policy=policy, rng=rng)
        case _:
            assert_never(policy.kind)
