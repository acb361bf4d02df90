"""What a look into the scheduler shows: plain data for the status page, metrics and tests."""

from dataclasses import dataclass

from gateway.scheduling.backend_picker import Candidate
from gateway.scheduling.model import BackendId, Forecast, RequestId


@dataclass(frozen=True, slots=True)
class BackendSnapshot:
    """One server: its state, our counts on it, and its last report with the age in seconds."""

    backend_id: BackendId
    usable: bool
    draining: bool
    full: bool
    requests: int
    sequences: int
    decoding: int
    context_tokens: int
    pending_prefill_tokens: int
    kv_reserved_tokens: int
    external_running: float
    active_adapters: dict[str, int]
    resident_adapters: tuple[str, ...]
    max_loras: int
    reported_running: int | None
    reported_waiting: int | None
    reported_kv_usage: float | None
    report_age_s: float | None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """Requests that wait in one priority level for one service."""

    priority: int
    service: str
    requests: int


@dataclass(frozen=True, slots=True)
class SchedulerSnapshot:
    """The whole scheduler at one instant."""

    pool: str
    draining: bool
    tracked_requests: int
    queued_requests: int
    queued_bytes: int
    queues: tuple[QueueSnapshot, ...]
    backends: tuple[BackendSnapshot, ...]
    ignored_events: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request went where it went: one per dispatch, newest attempt kept."""

    request_id: RequestId
    decided_at: float
    waited_s: float
    attempt: int
    service: str
    target: str
    adapter: str | None
    prompt_tokens: int
    expected_output_tokens: int
    chosen: BackendId
    forecast: Forecast
    candidates: tuple[Candidate, ...]
    closed: tuple[BackendId, ...]
