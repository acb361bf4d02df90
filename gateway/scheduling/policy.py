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
    """Limits of the admission queue; a limit is inclusive, one more is refused."""

    max_requests: int = 10_000
    max_bytes: int = 1 << 30
    max_non_critical_requests: int = 10_000
    timeout_s: float = 30.0
    max_attempts: int = 3
    retry_budget_ratio: float = 0.2
    retry_budget_floor: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPolicy:
    """When a server may take a request; see capacity.py."""

    max_requests_per_backend: int = 256
    max_engine_waiting: int = 4
    default_max_loras: int = 1
    margin_critical: float = 0.92
    margin_non_critical: float = 0.90
    max_holdback: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessPolicy:
    """Order between services of one priority; see fairness.py."""

    dimension: FairnessDimension = FairnessDimension.SLO_ADHERENCE
    window_s: float = 300.0
    tolerance: float = 0.02
    neutral_requests: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerPolicy:
    """How a server is chosen; see backend_picker.py."""

    kind: PickerKind = PickerKind.LATENCY
    tie_tolerance: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicy:
    """Everything a scheduler is built from, for one pool."""

    pool: LLMServerPool
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    capacity: CapacityPolicy = field(default_factory=CapacityPolicy)
    fairness: FairnessPolicy = field(default_factory=FairnessPolicy)
    picker: PickerPolicy = field(default_factory=PickerPolicy)
