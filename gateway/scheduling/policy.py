"""Frozen, validated parameters of every policy, with units in the names.

Defaults are the shipped ones; settings.py builds these from flags, environment and file.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.scheduling.model import LLMServerPool


class FairnessDimension(StrEnum):
    """What services of one priority are compared by when they compete under scarcity."""

    FCFS = "fcfs"


class PickerKind(StrEnum):
    """How a server is chosen among the open ones."""

    LEAST_OUTSTANDING = "least_outstanding"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """Limits of the admission queue; a limit is inclusive, one more is refused.

    Attributes:
        max_requests, max_bytes: of all queued requests; bytes are those of whole bodies.
        max_non_critical_requests: of the queued Non-Critical ones.
        timeout_s: longest wait of any request.
    """

    max_requests: int = 10_000
    max_bytes: int = 1 << 30
    max_non_critical_requests: int = 10_000
    timeout_s: float = 30.0


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
class CapacityPolicy:
    """When a server may take a request; see capacity.py.

    Attributes:
        max_requests_per_backend: sequences in flight on one server (vLLM's max_num_seqs).
        max_engine_waiting: requests in the engine's own queue above which it gets no more.
        default_max_loras: adapter slots of a server that has not reported them (vLLM's default).
    """

    max_requests_per_backend: int = 256
    max_engine_waiting: int = 4
    default_max_loras: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessPolicy:
    """Order between services of one priority; see fairness.py."""

    dimension: FairnessDimension = FairnessDimension.FCFS


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerPolicy:
    """How a server is chosen; see backend_picker.py.

    Attributes:
        cold_adapter_cost: how many more requests in flight a server that holds the adapter may
            have before one that would have to load it is preferred.
    """

    kind: PickerKind = PickerKind.LEAST_OUTSTANDING
    cold_adapter_cost: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicy:
    """Everything a scheduler is built from, for one pool."""

    pool: LLMServerPool
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    capacity: CapacityPolicy = field(default_factory=CapacityPolicy)
    fairness: FairnessPolicy = field(default_factory=FairnessPolicy)
    picker: PickerPolicy = field(default_factory=PickerPolicy)
