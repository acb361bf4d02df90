"""Hypothesis strategies over a world small enough for everything to collide."""

import dataclasses

from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLeft,
    FailureKind,
)
from gateway.scheduling.model import (
    CRITICAL,
    NON_CRITICAL,
    BackendId,
    BackendLoad,
    InferenceRequest,
    LatencyObjective,
    LLMService,
    RequestId,
    ServedModel,
    TokenUsage,
)
from gateway.scheduling.policy import (
    FairnessDimension,
    PickerKind,
    QueuePolicy,
    RetryPolicy,
    SchedulingPolicy,
)
from tests.builders import BASE, make_policy, make_request, make_service, serving

ADAPTERS = ("lora-a", "lora-b", "lora-c")
BACKENDS = tuple(map(BackendId, ("a", "b", "c")))
NOWHERE = "model-that-nobody-serves"

backend_ids = st.sampled_from(BACKENDS)
failure_kinds = st.one_of(st.just(FailureKind.CONNECT), st.sampled_from(FailureKind))
objectives = st.sampled_from(
    (
        None,
        LatencyObjective(ttft_s=1.0),
        LatencyObjective(ttft_s=0.01),
        LatencyObjective(ttft_s=1.0, tpot_s=0.02),
        LatencyObjective(ntpot_s=0.03),
    )
)
pauses_s = st.sampled_from((0.0, 0.0, 0.0, 0.001, 0.05, 0.5, 3.0, 40.0, 1_000.0))


def served_models() -> st.SearchStrategy[tuple[ServedModel, ...]]:
    """Lists of a server's models: mostly everything, sometimes fewer adapters or another base."""
    return st.one_of(
        st.just(serving(*ADAPTERS)),
        st.just(serving(*ADAPTERS)),
        st.lists(st.sampled_from(ADAPTERS), unique=True).map(lambda names: serving(*names)),
        st.just((ServedModel("other-base"),)),
    )


ServerEvent = BackendJoined | BackendDraining | BackendLeft


def server_events() -> st.SearchStrategy[ServerEvent]:
    """Servers come more often than they go, so that there is something to schedule on."""
    joined = st.builds(BackendJoined, backend_id=backend_ids, models=served_models())
    return st.one_of(
        joined,
        joined,
        st.builds(BackendDraining, backend_id=backend_ids),
        st.builds(BackendLeft, backend_id=backend_ids, for_good=st.booleans()),
    )


@st.composite
def services(draw: st.DrawFn) -> tuple[LLMService, ...]:
    """Services of all kinds: priorities, patience, splits, a split without weights."""
    waits_s = st.sampled_from((None, None, 0.0, 1.0, 100.0))
    return (
        make_service("vip", priority=5, targets=[("lora-a", 1.0)]),
        make_service(
            "chat",
            priority=draw(st.sampled_from((CRITICAL, CRITICAL, NON_CRITICAL))),
            objective=draw(objectives),
            max_share=draw(st.sampled_from((None, 0.2))),
        ),
        make_service("batch", priority=NON_CRITICAL, max_queue_wait_s=draw(waits_s)),
        make_service(
            "split",
            priority=draw(st.sampled_from((CRITICAL, NON_CRITICAL))),
            targets=[(BASE, 2.0), ("lora-b", 1.0), ("lora-c", draw(st.sampled_from((0.0, 1.0))))],
        ),
        make_service(
            "bulk", priority=-2, max_queue_wait_s=draw(waits_s), objective=draw(objectives)
        ),
        make_service("unweighted", targets=[(BASE, 0.0), ("lora-a", 0.0)]),
    )


@st.composite
def policies(draw: st.DrawFn) -> SchedulingPolicy:
    """Policies with limits low enough to be met within a few requests."""
    policy = make_policy(
        *draw(services()),
        slots=draw(st.integers(1, 4)),
        max_loras=draw(st.sampled_from((1, 1, 2))),
        queue=QueuePolicy(
            max_requests=draw(st.sampled_from((1_000, 1_000, 5, 2))),
            max_bytes=draw(st.sampled_from((1_000_000, 1_000_000, 1_500))),
            max_non_critical_requests=draw(st.sampled_from((1_000, 1_000, 3, 1))),
            timeout_s=draw(st.sampled_from((30.0, 30.0, 0.5))),
            preempts=draw(st.booleans()),
        ),
        retry=RetryPolicy(
            max_attempts=draw(st.sampled_from((3, 3, 2, 1))),
            budget_burst=draw(st.sampled_from((2.0, 0.0))),
        ),
        accept_unregistered_models=draw(st.sampled_from((True, True, False))),
        picker=draw(st.sampled_from(PickerKind)),
        fairness=draw(st.sampled_from(FairnessDimension)),
        sub_flows=draw(st.booleans()),
        trusts_client_slo=draw(st.booleans()),
    )
    capacity = dataclasses.replace(
        policy.capacity, margin_late=draw(st.sampled_from((0.8, 0.8, 0.1)))
    )
    return dataclasses.replace(policy, capacity=capacity)


@st.composite
def requests(draw: st.DrawFn, *, request_id: str = "r") -> InferenceRequest:
    """Requests of every service and size."""
    service = draw(
        st.sampled_from(
            (
                "chat",
                "chat",
                "chat",
                "vip",
                "batch",
                "split",
                "bulk",
                "default",
                "default",
                "default",
            )
        )
    )
    service = draw(st.sampled_from((service,) * 18 + ("unweighted", "unheard-of")))
    models = (BASE, *ADAPTERS, *ADAPTERS, NOWHERE) if service == "default" else (service,)
    return make_request(
        request_id,
        service=service,
        model=draw(st.sampled_from(models)),
        prompt_tokens=draw(st.sampled_from((None, 1, 40, 400, 3_000))),
        prompt_bytes=draw(st.sampled_from((0, 100, 2_000))),
        body_bytes=draw(st.sampled_from((100, 700))),
        max_tokens=draw(st.sampled_from((None, 1, 30))),
        choices=draw(st.sampled_from((1, 1, 2, 3))),
        streamed=draw(st.booleans()),
        generates=draw(st.sampled_from((True, True, True, False))),
        prefix_blocks=draw(st.sampled_from(((), (), (1,), (1, 2), (1, 3)))),
        ttft_slo_s=draw(st.sampled_from((None, None, 0.02, 5.0))),
        tpot_slo_s=draw(st.sampled_from((None, None, 0.001))),
        fairness_id=draw(st.sampled_from((None, "ann", "bob"))),
    )


def usages() -> st.SearchStrategy[TokenUsage]:
    """Usage as engines tell it, or not."""
    counts = st.one_of(st.none(), st.integers(0, 500))
    return st.builds(
        TokenUsage,
        prompt_tokens=counts,
        completion_tokens=counts,
        cached_tokens=counts,
        events=st.integers(0, 100),
    )


@st.composite
def backend_loads(draw: st.DrawFn) -> BackendLoad:
    """Scrapes: empty pages, other people's traffic and adapters, short queues, small caches."""
    running = draw(st.sampled_from((None, None, 0, 0, 1, 6)))
    waiting = draw(st.sampled_from((None, None, 0, 0, 3, 9)))
    return BackendLoad(
        running=running,
        waiting=waiting,
        waiting_deferred=draw(st.sampled_from((None, 0))) if waiting is None else waiting // 2,
        kv_blocks=draw(st.sampled_from((None, 20, 30, 60))),
        block_tokens=draw(st.sampled_from((None, 16, 16, 16))),
        max_loras=draw(st.sampled_from((None, None, 1, 2))),
        active_adapters=draw(
            st.one_of(
                st.none(),
                st.lists(st.sampled_from((*ADAPTERS, "lora-x")), unique=True).map(tuple),
            )
        ),
    )


def renamed(request: InferenceRequest, request_id: RequestId) -> InferenceRequest:
    """The same request under another id."""
    return replace(request, id=request_id)
