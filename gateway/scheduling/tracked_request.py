"""One request as the scheduler follows it from arrival to end, and the table of its phases."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.scheduling.model import (
    BackendId,
    Forecast,
    InferenceRequest,
    LLMService,
    RequestPhase,
)
from gateway.scheduling.prediction import Prediction

NO_FLOW: Final = 0
"""The sub-flow of requests without a fairness id, and of all where ids are not regarded."""

_P = RequestPhase

TRANSITIONS: Mapping[RequestPhase, frozenset[RequestPhase]] = MappingProxyType(
    {
        _P.QUEUED: frozenset({_P.DISPATCHED, _P.CANCELLED, _P.REJECTED, _P.EVICTED}),
        _P.DISPATCHED: frozenset(
            {_P.STREAMING, _P.QUEUED, _P.COMPLETED, _P.FAILED, _P.CANCELLED, _P.EVICTED}
        ),
        _P.STREAMING: frozenset({_P.COMPLETED, _P.FAILED, _P.CANCELLED}),
        _P.COMPLETED: frozenset(),
        _P.FAILED: frozenset(),
        _P.CANCELLED: frozenset(),
        _P.REJECTED: frozenset(),
        _P.EVICTED: frozenset(),
    }
)
"""From each phase, the phases that may follow. A request starts QUEUED, if only for an instant;
DISPATCHED -> QUEUED is a failed attempt that will be tried on another server."""


class TrackedRequest:
    """Mutable state of one request; owned by the scheduler, shared with queue and ledger.

    Attributes:
        request, service, target: what arrived, whose it is, and the drawn model to send.
        arrived_at, sequence: the original arrival, kept over retries; `sequence` breaks ties.
        expires_at: when it leaves the queue unserved.
        choices: the request's own, at hand where every stream is looked at.
        attempts: dispatches so far; `tried` names their servers, oldest first, each with the
            number of its life: one that came back is another server.
        prompt_tokens: estimate of the prompt's length; `uncached_tokens` of them need a prefill
            on its server.
        block_tokens: tokens in each of the request's prefix blocks.
        expected_output_tokens: estimate for the whole answer, all choices together.
        output_tokens: tokens so far, all choices together.
        prediction: times forecast at its last dispatch; `told` is what others are told of it.
        ahead: requests that were on its server when it was sent there.
        late_at: when it can no longer meet its objective; `late` once that was noticed.
        counted: whether its outcome is in its service's adherence.
        impossible: whether no idle server could meet its objective; its misses burn nothing.
        miss_probability: as charged to its service while in flight, else None.
        overtaken: how often a less entitled request was dispatched before it.
        held_at: the server that is kept for it, or None.
        home: the server that holds most of its prompt while it waits, or None.
        stay: number of its stay in the queue; entries of earlier ones are dead.
        ttft_bound_s: TTFT from arrival that is aimed at.
        tpot_bound_s: TPOT that its server has to keep for it; None binds nobody.
        sub_flow: its client's flow inside the service; see sub_flows.py.
        prefill_pending: True from dispatch until the first token is seen (or forecast).
    """

    __slots__ = (
        "adapter",
        "ahead",
        "arrived_at",
        "attempts",
        "backend_id",
        "block_tokens",
        "choices",
        "counted",
        "dispatched_at",
        "expected_output_tokens",
        "expires_at",
        "first_token_at",
        "held_at",
        "home",
        "impossible",
        "late",
        "late_at",
        "miss_probability",
        "output_tokens",
        "overtaken",
        "phase",
        "prediction",
        "prefill_pending",
        "prompt_tokens",
        "request",
        "sequence",
        "service",
        "stay",
        "sub_flow",
        "target",
        "told",
        "tpot_bound_s",
        "tried",
        "ttft_bound_s",
        "uncached_tokens",
    )

    def __init__(
        self,
        *,
        request: InferenceRequest,
        service: LLMService,
        target: str,
        arrived_at: float,
        sequence: int,
    ) -> None:
        """Start in QUEUED, with nothing tried."""
        self.request = request
        self.service = service
        self.target = target
        self.arrived_at = arrived_at
        self.sequence = sequence
        self.phase = RequestPhase.QUEUED
        self.expires_at = arrived_at
        self.attempts = 0
        self.choices = request.choices
        self.tried: tuple[tuple[BackendId, int], ...] = ()
        self.backend_id: BackendId | None = None
        self.adapter: str | None = None
        self.prediction: Prediction | None = None
        self.told: Forecast | None = None
        self.ahead = 0
        self.dispatched_at = arrived_at
        self.first_token_at: float | None = None
        self.prompt_tokens = 0
        self.uncached_tokens = 0
        self.block_tokens = 0.0
        self.expected_output_tokens = 0
        self.output_tokens = 0
        self.prefill_pending = False
        self.ttft_bound_s = float("inf")
        self.sub_flow = NO_FLOW
        self.late_at = float("inf")
        self.late = False
        self.counted = False
        self.impossible = False
        self.miss_probability: float | None = None
        self.stay = 0
        self.overtaken = 0
        self.held_at: BackendId | None = None
        self.home: BackendId | None = None
        self.tpot_bound_s: float | None = None

    def __repr__(self) -> str:
        """Name, phase and place, for failed assertions."""
        return (
            f"<TrackedRequest {self.request.id} {self.phase} service={self.service.name}"
            f" target={self.target} backend={self.backend_id} attempts={self.attempts}>"
        )

    def enter(self, phase: RequestPhase) -> None:
        """Move to `phase`.

        Raises:
            ValueError: the transition table does not allow it; that is a defect of the scheduler.
        """
        if phase not in TRANSITIONS[self.phase]:
            raise ValueError(f"{self!r} may not become {phase}")
        self.phase = phase
