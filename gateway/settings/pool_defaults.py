"""The keys that hold for every pool and may be set again inside one, down to the last price.

Names are those of the policies in scheduling/policy.py, with the part they belong to in front.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from gateway.scheduling.policy import (
    BreakerPolicy,
    CapacityPolicy,
    FairnessDimension,
    FairnessPolicy,
    PickerKind,
    PickerPolicy,
    QueuePolicy,
    RetryPolicy,
)
from gateway.settings.quantities import Duration, FilePath, Key, PositiveDuration, Size

_QUEUE, _RETRY, _CAPACITY = QueuePolicy(), RetryPolicy(), CapacityPolicy()
_FAIRNESS, _PICKER, _BREAKER = FairnessPolicy(), PickerPolicy(), BreakerPolicy()

Count = Annotated[int, Field(ge=0)]
CountFromOne = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(gt=0, le=1)]


class PoolBasics(BaseModel):
    """What depends on the servers and on what is wanted of them."""

    queue_max_requests: Count = Field(
        _QUEUE.max_requests, description="requests that may wait in a pool's queue"
    )
    queue_max_bytes: Size = Field(
        _QUEUE.max_bytes, description="bytes of request bodies that may wait"
    )
    queue_max_non_critical_requests: Count = Field(
        _QUEUE.max_non_critical_requests, description="Non-Critical requests that may wait"
    )
    queue_timeout: Duration = Field(
        _QUEUE.timeout_s,
        description="longest wait in the queue, unless the service has its own max_queue_wait",
    )
    preempt_non_critical: bool = Field(
        default=_QUEUE.preempts,
        description="give up Non-Critical requests without a token (503) where that makes room for"
        " a Critical one that no server is open to",
    )
    retry_max_attempts: CountFromOne = Field(
        _RETRY.max_attempts, description="servers tried for one request, the first included"
    )
    retry_budget_ratio: Amount = Field(
        _RETRY.budget_ratio, description="retries earned by each new request"
    )
    retry_budget_burst: Amount = Field(
        _RETRY.budget_burst, description="most retries that can be saved up"
    )
    eject_after_failures: CountFromOne = Field(
        _BREAKER.consecutive_failures,
        description="failures in a row after which a server gets nothing new for a while",
    )
    eject_failure_share: Margin = Field(
        _BREAKER.failure_share, description="so does this share of failures over about 30 s"
    )
    eject_min_requests: CountFromOne = Field(
        _BREAKER.min_requests, description="requests of which that share is taken, at least"
    )
    eject_slow_factor: Amount = Field(
        _BREAKER.slow_factor,
        description="so does a time per token of so many times the median of others; 0 never",
    )
    eject_time: PositiveDuration = Field(
        _BREAKER.first_ejection_s,
        description="time until one request probes an ejected server; doubles each time",
    )
    eject_max_time: PositiveDuration = Field(
        _BREAKER.longest_ejection_s, description="longest time until the next probe"
    )
    max_ejected_share: Share = Field(
        _BREAKER.max_ejected_share,
        description="share of a pool's servers that may be ejected; beyond it all are used",
    )
    max_requests_per_backend: CountFromOne = Field(
        _CAPACITY.max_requests_per_backend,
        description="sequences in flight on one server (vLLM's max_num_seqs)",
    )
    max_engine_waiting: Count = Field(
        _CAPACITY.max_engine_waiting,
        description="requests in a server's own queue above which it gets no more",
    )
    default_max_loras: CountFromOne = Field(
        _CAPACITY.default_max_loras,
        description="adapter slots of a server that has not reported them (vLLM's max_loras)",
    )
    prefill_chunk_tokens: CountFromOne = Field(
        _CAPACITY.chunk_budget_tokens,
        description="tokens of one step of a server until it shows otherwise"
        " (vLLM's max_num_batched_tokens)",
    )
    margin_critical: Margin = Field(
        _CAPACITY.margin_critical,
        description="share of a latency bound that the forecast of a Critical request may use",
    )
    margin_non_critical: Margin = Field(
        _CAPACITY.margin_non_critical, description="the same for a Non-Critical request"
    )
    margin_late: Margin = Field(
        _CAPACITY.margin_late,
        description="share of the TPOT bound for Critical requests whose first token is too late"
        " in any case: the rest is for those in time; meanwhile Non-Critical ones have a bit less",
    )
    fairness_dimension: FairnessDimension = Field(
        _FAIRNESS.dimension,
        description="what decides between services of one priority:"
        f" {', '.join(FairnessDimension)}",
    )
    fairness_window: Annotated[Duration, Field(ge=1)] = Field(
        _FAIRNESS.window_s, description="time over which services are held to their objectives"
    )
    fairness_ids: bool = Field(
        default=_FAIRNESS.sub_flows,
        description="let clients of a service take turns, by x-gateway-inference-fairness-id",
    )
    picker: PickerKind = Field(
        _PICKER.kind, description=f"how a server is chosen: {', '.join(PickerKind)}"
    )
    servers_use_priority: bool = Field(
        default=False, description="send the service's priority: servers schedule by priority"
    )
    trust_client_slo: bool = Field(
        default=False,
        description="let x-slo-ttft-ms and x-slo-tpot-ms tighten a request's objective,"
        " not only the choice of its server",
    )
    trust_client_priority: bool = Field(
        default=False, description="pass the priority in a client's body on to the servers"
    )
    upstream_authorization: Literal["forward", "drop"] = Field(
        "forward", description="what becomes of the client's credentials: forward or drop"
    )
    upstream_api_key: Key | None = Field(
        None, description="bearer key sent to the servers in place of the client's credentials"
    )
    upstream_tls_ca: FilePath | None = Field(
        None, description="PEM file of the authorities that servers' certificates must be from"
    )
    upstream_tls_certificate: FilePath | None = Field(
        None, description="PEM file with the certificate that is shown to servers"
    )
    upstream_tls_key: FilePath | None = Field(None, description="PEM file with its private key")
    upstream_tls_verify: bool = Field(
        default=True, description="refuse servers whose certificate is not valid for their name"
    )
    forward_steering_headers: bool = Field(
        default=False, description="pass on headers meant for a gateway: one is behind this one"
    )


class PolicyTuning(BaseModel):
    """Prices and thresholds of the policies; the defaults were chosen by the policy benchmark."""

    engine_backlog_steps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        _CAPACITY.engine_backlog_steps,
        description="prefill steps that may be pending on a server, so that it never runs dry",
    )
    fairness_tolerance: Share = Field(
        _FAIRNESS.tolerance,
        description="difference in adherence within which the earliest deadline goes first",
    )
    fairness_late_share: Share = Field(
        _FAIRNESS.late_share,
        description="share of tokens for Critical requests that are late, while others are not",
    )
    fairness_neutral_requests: CountFromOne = Field(
        _FAIRNESS.neutral_requests,
        description="requests exactly at its target that a service starts with",
    )
    picker_miss_cost: Amount = Field(
        _PICKER.miss_cost, description="cost of one expected miss, in units of headroom (latency)"
    )
    picker_slot_price: Amount = Field(
        _PICKER.slot_price,
        description="cost of taking an adapter slot where they are scarce (latency)",
    )
    picker_load_price: Amount = Field(
        _PICKER.load_price, description="cost of loading an adapter (latency)"
    )
    picker_prefill_price: Amount = Field(
        _PICKER.prefill_price_per_s, description="cost of a second of prefill (latency)"
    )
    picker_copy_price: Amount = Field(
        _PICKER.copy_price_per_s,
        description="cost of a second of prefill that a server which holds the prompt would spare"
        " (latency)",
    )
    picker_tie_tolerance: Share = Field(
        _PICKER.tie_tolerance,
        description="servers within this share of the lowest cost are drawn at random (latency)",
    )
    picker_cold_adapter_cost: Amount = Field(
        _PICKER.cold_adapter_cost,
        description="requests more that a server holding the adapter may have in flight"
        " (least_outstanding)",
    )


class PoolDefaults(PolicyTuning, PoolBasics):  # in this order, the basics are shown first
    """What holds for every pool that does not set its own value."""
