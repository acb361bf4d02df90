"""Makers of the scheduler's nouns, so that a test names only what it is about."""

from collections.abc import Iterable
from math import log

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.miss_risk import steepness
from gateway.scheduling.model import (
    NON_CRITICAL,
    BackendId,
    BackendLoad,
    InferenceRequest,
    LatencyObjective,
    LLMServerPool,
    LLMService,
    RequestId,
    ServedModel,
    ServiceName,
    TargetModel,
)
from gateway.scheduling.policy import (
    CapacityPolicy,
    FairnessDimension,
    FairnessPolicy,
    PickerKind,
    PickerPolicy,
    QueuePolicy,
    RetryPolicy,
    SchedulingPolicy,
)
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.tracked_request import TrackedRequest

BASE = "base"
"""The base model that every server of the tests serves."""


def make_request(
    request_id: str = "r1",
    *,
    service: str = "default",
    model: str = BASE,
    prompt_tokens: int | None = 100,
    prompt_bytes: int = 400,
    body_bytes: int = 500,
    max_tokens: int | None = 50,
    choices: int = 1,
    streamed: bool = True,
    generates: bool = True,
    prefix_blocks: tuple[int, ...] = (),
    ttft_slo_s: float | None = None,
    tpot_slo_s: float | None = None,
    fairness_id: str | None = None,
) -> InferenceRequest:
    """A short streamed request for the base model, of the default service."""
    return InferenceRequest(
        id=RequestId(request_id),
        service=ServiceName(service),
        model=model,
        prompt_tokens=prompt_tokens,
        prompt_bytes=prompt_bytes,
        body_bytes=body_bytes,
        max_tokens=max_tokens,
        choices=choices,
        streamed=streamed,
        generates=generates,
        prefix_blocks=prefix_blocks,
        ttft_slo_s=ttft_slo_s,
        tpot_slo_s=tpot_slo_s,
        fairness_id=fairness_id,
    )


def make_service(
    name: str = "chat",
    *,
    model: str | None = None,
    targets: Iterable[tuple[str, float]] = (),
    objective: LatencyObjective | None = None,
    priority: int = NON_CRITICAL,
    max_queue_wait_s: float | None = None,
    fairness_weight: float = 1.0,
    max_share: float | None = None,
) -> LLMService:
    """A Non-Critical service that is answered by the base model unless `targets` say otherwise."""
    return LLMService(
        name=ServiceName(name),
        model=name if model is None else model,
        targets=tuple(TargetModel(target, weight) for target, weight in targets)
        or (TargetModel(BASE),),
        objective=objective,
        priority=priority,
        max_queue_wait_s=max_queue_wait_s,
        fairness_weight=fairness_weight,
        max_share=max_share,
    )


def make_policy(
    *services: LLMService,
    slots: int = 256,
    max_loras: int = 1,
    queue: QueuePolicy | None = None,
    retry: RetryPolicy | None = None,
    accept_unregistered_models: bool = True,
    picker: PickerKind = PickerKind.LATENCY,
    fairness: FairnessDimension = FairnessDimension.SLO_ADHERENCE,
    sub_flows: bool = False,
    trusts_client_slo: bool = False,
) -> SchedulingPolicy:
    """Default parameters for a pool of these services; `slots` is the limit per server."""
    return SchedulingPolicy(
        pool=LLMServerPool(
            name="pool",
            services=services,
            accept_unregistered_models=accept_unregistered_models,
            trusts_client_slo=trusts_client_slo,
        ),
        queue=QueuePolicy() if queue is None else queue,
        retry=RetryPolicy() if retry is None else retry,
        capacity=CapacityPolicy(max_requests_per_backend=slots, default_max_loras=max_loras),
        fairness=FairnessPolicy(dimension=fairness, sub_flows=sub_flows),
        picker=PickerPolicy(kind=picker),
    )


def serving(*adapters: str) -> tuple[ServedModel, ...]:
    """What a server lists: the base model and these adapters of it."""
    return (ServedModel(BASE), *(ServedModel(adapter, parent=BASE) for adapter in adapters))


def make_ledger(*, max_loras: int = 4) -> BackendLedger:
    """A ledger without servers, with vLLM's default size of a step."""
    return BackendLedger(default_max_loras=max_loras, chunk_budget_tokens=2048)


def make_backend(
    backend_id: str = "a",
    *,
    adapters: Iterable[str] = (),
    max_loras: int = 4,
    load: BackendLoad | None = None,
) -> BackendState:
    """A joined server's ledger entry; `load` is its last report."""
    ledger = make_ledger(max_loras=max_loras)
    backend = ledger.join(BackendId(backend_id), serving(*adapters))
    if load is not None:
        ledger.report(backend, load, taken_at=0.0)
    return backend


def make_prediction(*, ttft_s: float = 0.5, tpot_s: float = 0.02) -> Prediction:
    """A forecast of these means, with p90 at double."""
    predictor = LatencyPredictor(prior=StepTimePrior())
    prediction = predictor.predict(make_backend(), make_tracked(), now=0.0)
    prediction.ttft_s, prediction.ttft_p90_s = ttft_s, 2 * ttft_s
    prediction.tpot_s, prediction.tpot_p90_s = tpot_s, 2 * tpot_s
    prediction.ttft_steepness = prediction.tpot_steepness = steepness(log(2))
    return prediction


def make_tracked(
    request_id: str = "r1",
    *,
    sequence: int = 1,
    arrived_at: float = 0.0,
    target: str = BASE,
    service: LLMService | None = None,
    prompt_tokens: int = 100,
    output_tokens: int = 50,
    body_bytes: int = 500,
    choices: int = 1,
    streamed: bool = True,
    wait_s: float = 30.0,
    prefix_blocks: tuple[int, ...] = (),
) -> TrackedRequest:
    """A queued request whose token estimates are given; its prefix blocks share the prompt."""
    service = make_service() if service is None else service
    tracked = TrackedRequest(
        request=make_request(
            request_id,
            service=service.name,
            body_bytes=body_bytes,
            choices=choices,
            streamed=streamed,
            prefix_blocks=prefix_blocks,
        ),
        service=service,
        target=target,
        arrived_at=arrived_at,
        sequence=sequence,
    )
    tracked.prompt_tokens = tracked.uncached_tokens = prompt_tokens
    if prefix_blocks:
        tracked.block_tokens = prompt_tokens / len(prefix_blocks)
    tracked.expected_output_tokens = output_tokens
    tracked.expires_at = arrived_at + wait_s
    return tracked
