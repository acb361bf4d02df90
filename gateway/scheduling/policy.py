"""Frozen, validated parameters of every policy, with units in the names.

Defaults are the shipped ones; settings.py builds these from flags, environment and file.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.scheduling.model import LLMServerPool


class FairnessDimension(StrEnum):
    """What services of one priority are compared by when they compete under scarcity."""

    SLO_ADHERENCE = "slo_adherence"
    TOKENS = "tokens"
    REQUESTS = "requests"
    DEADLINE = "deadline"
    FCFS = "fcfs"


class PickerKind(StrEnum):
    """How a server is chosen among the open ones."""

    LATENCY = "latency"
    LEAST_OUTSTANDING = "least_outstanding"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """Limits of the admission queue; a limit is inclusive, one more is refused.

    Attributes:
        max_requests, max_bytes: of all queued requests; bytes are those of whole bodies.
        max_non_critical_requests: of the queued Non-Critical ones.
        timeout_s: longest wait of any request.
        preempts: whether Non-Critical requests without a token are given up for Critical ones that
            no server is open to; see preemption.py.
    """

    max_requests: int = 10_000
    max_bytes: int = 1 << 30
    max_non_critical_requests: int = 10_000
    timeout_s: float = 30.0
    preempts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed attempt is tried on another server; see retry_budget.py.

    Attributes:
        max_attempts: servers tried for one request, the first included.
        budget_ratio: retries earned by each request dispatched for the first time.
        budget_burst: most retries that can be saved up, and the number at the start.
    """

    max_attempts: int = 3
    budget_ratio: float = 0.2
    budget_burst: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a server where requests fail is left out, and for how long; see breaker.py.

    Attributes:
        consecutive_failures: so many failures in a row eject a server.
        failure_share, min_requests: so does this share of failures over about the last 30 s, of
            at least so many requests.
        slow_factor: so does a time per token of so many times the median of others; 0 never.
        first_ejection_s, longest_ejection_s: time until a probe; doubles each time, up to the
            latter.
        max_ejected_share: of the usable servers; when more would be ejected, all are used.
    """

    consecutive_failures: int = 5
    failure_share: float = 0.5
    min_requests: int = 10
    slow_factor: float = 10.0
    first_ejection_s: float = 1.0
    longest_ejection_s: float = 8.0
    max_ejected_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPolicy:
    """When a server may take a request; see capacity.py.

    Attributes:
        max_requests_per_backend: sequences in flight on one server (vLLM's max_num_seqs).
        max_engine_waiting: requests in the engine's own queue above which it gets no more.
        default_max_loras: adapter slots of a server that has not reported them (vLLM's default).
        chunk_budget_tokens: tokens of one engine step (max_num_batched_tokens) of a server that
            has not shown larger ones (vLLM's default below 70 GiB).
        engine_backlog_steps: prefill steps that may be pending on a server, so that it never runs
            dry; what is beyond waits here.
        margin_critical, margin_non_critical: share of a TPOT or TTFT bound that a forecast may
            use, by the request's priority.
        margin_late: share of the TPOT bound for Critical requests that come too late everywhere;
            while such ones wait, Non-Critical ones have a little less. Above `margin_critical` it
            changes nothing for those.
    """

    max_requests_per_backend: int = 256
    max_engine_waiting: int = 4
    default_max_loras: int = 1
    chunk_budget_tokens: int = 2048
    engine_backlog_steps: float = 2.0
    margin_critical: float = 0.88
    margin_non_critical: float = 0.84
    margin_late: float = 0.80


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessPolicy:
    """Order between services of one priority; see fairness.py and slo_adherence.py.

    Attributes:
        window_s: over which outcomes count.
        tolerance: difference in adherence within which the earliest deadline decides.
        neutral_requests: weight of a new service's start at its target.
        sub_flows: whether the clients' fairness ids make flows that share their service evenly.
        late_share: share of dispatched tokens that late Critical requests get while Critical ones
            wait that can still meet their objective.
    """

    dimension: FairnessDimension = FairnessDimension.SLO_ADHERENCE
    window_s: float = 300.0
    tolerance: float = 0.02
    neutral_requests: int = 20
    late_share: float = 0.03
    sub_flows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerPolicy:
    """How a server is chosen; see backend_picker.py.

    Attributes:
        cold_adapter_cost: how many more requests in flight a server that holds the adapter may
            have before one that would have to load it is preferred (least_outstanding).
        miss_cost: cost of one expected miss in units of headroom (latency).
        slot_price: cost of keeping an adapter slot, times the share of slots in use, divided by
            one more than the requests of that adapter on the server (latency).
        prefill_price_per_s: cost of a second of prefill (latency).
        copy_price_per_s: cost of a second of prefill that another open server would spare, since it
            holds the prompt, divided by one more than the requests there that share it (latency).
        tie_tolerance: servers within this share of the lowest cost are drawn at random (latency).
    """

    kind: PickerKind = PickerKind.LATENCY
    cold_adapter_cost: float = 8.0
    miss_cost: float = 4.0
    slot_price: float = 3.0
    load_price: float = 0.1
    prefill_price_per_s: float = 5.0
    copy_price_per_s: float = 30.0
    tie_tolerance: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicy:
    """Everything a scheduler is built from, for one pool."""

    pool: LLMServerPool
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    capacity: CapacityPolicy = field(default_factory=CapacityPolicy)
    fairness: FairnessPolicy = field(default_factory=FairnessPolicy)
    picker: PickerPolicy = field(default_factory=PickerPolicy)
