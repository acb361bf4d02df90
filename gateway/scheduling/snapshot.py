"""What a look into the scheduler shows: plain data for the status page, metrics and tests."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.scheduling.backend_picker import Candidate
from gateway.scheduling.breaker import Circuit
from gateway.scheduling.capacity import ClosedReason
from gateway.scheduling.model import BackendId, Forecast, LatencyObjective, RequestId


@dataclass(frozen=True, slots=True)
class ForecastQuality:
    """How good one server's forecasts of one time have been lately; see forecast_error.py.

    Attributes:
        samples: outcomes learned from.
        relative_error: running mean of |forecast - actual| / actual, each at most 3; None without
            samples.
        p90_coverage: running share of outcomes within their p90 forecast, .9 if it is right; None
            without samples.
    """

    samples: int = 0
    relative_error: float | None = None
    p90_coverage: float | None = None


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What a server's engine steps are believed to cost, seconds per unit; see step_time.py."""

    overhead_s: float
    step_s: float
    per_sequence_s: float
    per_context_token_s: float
    per_prefill_token_s: float
    adapter_load_s: float


@dataclass(frozen=True, slots=True)
class Silence:
    """A server that is out, as health checks saw it; the scheduler knows nothing of this.

    Attributes:
        was_heard: whether it ever was up.
        for_s: seconds since it went out; if it never was up, since the first look at it.
        trouble: what the newest look has shown; None before the first has ended.
    """

    was_heard: bool
    for_s: float
    trouble: str | None


@dataclass(frozen=True, slots=True)
class BackendSnapshot:
    """One server: its state, our counts on it, and its last report with the age in seconds.

    `saturation` is the share in use of what is scarcest there, see `Capacity.saturation`.
    `circuit` is that of its breaker; `ejected` tells whether it gets nothing new because of it,
    `failures` counts failed attempts by kind. `forecast_trust` is how far the choice of a server
    goes by its forecasts, 0 (it goes by what is outstanding) to 1. `step_costs` is None until a
    first forecast was made for the server. `silence` is filled in by who looks at servers, where
    one is out.
    """

    backend_id: BackendId
    usable: bool
    draining: bool
    full: bool
    saturation: float
    circuit: Circuit
    ejected: bool
    ejections: int
    failure_rate: float
    failures: dict[str, int]
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
    ttft_forecasts: ForecastQuality
    tpot_forecasts: ForecastQuality
    forecast_trust: float
    step_costs: StepCosts | None
    silence: Silence | None = None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """Requests that wait in one priority level for one service."""

    priority: int
    service: str
    requests: int


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """How one service fares by its objective over the fairness window; see slo_adherence.py.

    Attributes:
        objective: None without one.
        target: share of its requests that must meet the objective; None without one.
        attainment: share of those ended that met it (without an objective: that were served);
            None while none has ended.
        ended, missed: requests whose outcome is certain, also if they still wait or run.
        judged_total, missed_total: the same since the start, whatever the window.
        in_flight: requests at servers whose outcome is not certain yet.
        expected_misses: sum of their probabilities to miss.
        burn: use of the error budget; 1.0 is exactly at the target, by the fairness weight.
    """

    service: str
    priority: int
    objective: LatencyObjective | None
    target: float | None
    attainment: float | None
    ended: int
    missed: int
    judged_total: int
    missed_total: int
    in_flight: int
    expected_misses: float
    burn: float


@dataclass(frozen=True, slots=True)
class SchedulerSnapshot:
    """The whole scheduler at one instant.

    `services` are judged over `fairness_window_s`; in `panic` ejected servers are used all the
    same.
    """

    pool: str
    fairness_window_s: float
    draining: bool
    panic: bool
    tracked_requests: int
    queued_requests: int
    queued_bytes: int
    queues: tuple[QueueSnapshot, ...]
    services: tuple[ServiceSnapshot, ...]
    backends: tuple[BackendSnapshot, ...]
    ignored_events: int


class ClosedServer(NamedTuple):
    """A server that serves the model and was not compared, and why."""

    backend_id: BackendId
    reason: ClosedReason


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
    closed: tuple[ClosedServer, ...]
