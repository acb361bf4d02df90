"""May this server take this request now? Open is a property of (request, server)."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from gateway.scheduling.admission_queue import lane_of
from gateway.scheduling.backend_state import BackendState, Hold
from gateway.scheduling.critical_headroom import CriticalHeadroom
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import is_critical
from gateway.scheduling.policy import CapacityPolicy
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.server_outlook import keeps_pace, pace_s
from gateway.scheduling.tracked_request import TrackedRequest

_REPORT_HOLDS_S: Final = 1.0
"""Age up to which a report of the engine's own queue closes a server."""
_SURELY_TOO_LONG: Final = 2.0
"""A prompt estimated at this many times the longest context is too long despite the estimate."""

_BEHIND_LATE: Final = 0.975
"""Share of their margin for Non-Critical requests while late Critical ones wait: with all of it, a
long late prompt may find no server that smaller ones have not filled."""

HURRIES_AFTER: Final = 0.5
"""Share of its TTFT bound after which no server's pace of the moment keeps a long Critical prompt
away: under load it may find none that is calm enough, and would be refused."""


class OpenServer:
    """A server that may take the request now, and the times predicted for it there."""

    __slots__ = ("backend", "prediction")

    def __init__(self, backend: BackendState, prediction: Prediction) -> None:
        """Take both."""
        self.backend = backend
        self.prediction = prediction


class ClosedReason(StrEnum):
    """Why a server that serves the model was not among those to choose from."""

    TRIED = "tried"
    """An earlier attempt of the request failed there."""
    EJECTED = "ejected"
    """Requests have failed there; it gets none for a while."""
    FULL = "full"
    """At its limit of requests, of prefill ahead, or with a queue of its own."""
    ADAPTER_SLOT = "adapter_slot"
    """No slot is free for the adapter, or it is kept for another request."""
    NO_ROOM = "no_room"
    """Too few KV blocks, or places for all choices of the request."""
    FORECAST_OR_TURN = "forecast_or_turn"
    """An objective would be broken, its own or one there, or the server is kept for another."""
    NOT_COMPARED = "not_compared"
    """Of many servers, enough others were open."""


class Capacity:
    """The conditions under which a server is open; all must hold.

    That the server is healthy, not draining and serves the model is the ledger's index already.
    """

    def __init__(
        self,
        *,
        policy: CapacityPolicy,
        predictor: LatencyPredictor,
        headroom: CriticalHeadroom | None = None,
    ) -> None:
        """Take limits and margins from `policy`; without `headroom` nothing is kept for others."""
        self._policy = policy
        self._predictor = predictor
        self._headroom = headroom

    def is_full(self, backend: BackendState, *, now: float) -> bool:
        """Whether the server is closed to every request: ejected, full, or its own queue grows.

        We queue here, not in the engine, where a request can be neither reordered nor moved; the
        engine only needs enough prefill ahead never to run dry. A report that is old closes
        nothing.
        """
        if backend.ejected:
            return True
        policy = self._policy
        waiting = backend.load.waiting
        return (
            backend.sequences + backend.external_running >= policy.max_requests_per_backend
            or backend.pending_prefill_tokens
            >= policy.engine_backlog_steps * backend.chunk_budget_tokens
            or (
                waiting is not None
                and waiting > policy.max_engine_waiting
                and self.engine_queues(backend, now=now)
            )
        )

    def engine_queues(self, backend: BackendState, *, now: float) -> bool:
        """Whether the engine's own queue was long of late; an old report tells nothing."""
        waiting = backend.load.waiting or 0
        return (
            waiting - (backend.load.waiting_deferred or 0) > self._policy.max_engine_waiting
            and now - (backend.load_taken_at or 0.0) <= _REPORT_HOLDS_S
        )

    def open_among(
        self,
        tracked: TrackedRequest,
        backends: Iterable[BackendState],
        *,
        now: float,
        enough: int | None = None,
        behind_late: bool = False,
    ) -> list[OpenServer]:
        """The servers that may take the request now; the first `enough` of them if that is given.

        For a late Critical request it is the one that gives its first token soonest: waiting
        would only make it later. Where that is too late, the last of a server's margin is left to
        those that can still be in time: the request would keep it from them for as long as it runs.
        Non-Critical requests `behind_late` ones leave a little more. Waiting uses up the budget of
        requests with an objective only; those without one are held to the pool's default where
        others run, not on an idle server. No server is ever closed by a TPOT that it would have
        with this request alone.
        """
        predictor = self._predictor
        margin = self.margin_of(tracked)
        margin_late = self._policy.margin_late
        if behind_late:
            margin = min(margin, _BEHIND_LATE * margin_late)
        bound = tracked.service.objective is not None
        waited_s = now - tracked.arrived_at if bound else 0.0
        budget_s = margin * (tracked.ttft_bound_s - waited_s)
        own_tpot_s = float("inf") if tracked.tpot_bound_s is None else tracked.tpot_bound_s
        critical = is_critical(tracked.service.priority)
        headroom = None if critical else self._headroom
        hurries = critical and waited_s > HURRIES_AFTER * tracked.ttft_bound_s
        found: list[OpenServer] = []
        soonest: OpenServer | None = None
        for backend in backends:
            if not self._fits(backend, tracked, now):
                continue
            prediction = predictor.predict(backend, tracked, now=now)
            others_s = backend.strictest_tpot_s
            strictest_s = own_tpot_s if own_tpot_s < others_s else others_s  # noqa: FURB136 - hot
            busy = bool(backend.in_flight)
            paced = not busy or keeps_pace(
                backend, prediction, margin * strictest_s, strictest_s, hurries=hurries
            )
            if (
                (paced and prediction.ttft_s <= budget_s)
                or not (bound or busy)
                or exceeds(backend, tracked)
            ):
                if headroom is not None and not headroom.spares(
                    tracked, backend, prediction, margin=self._policy.margin_critical, now=now
                ):
                    continue
                found.append(OpenServer(backend, prediction))
            elif (
                paced
                and tracked.late
                and (not busy or prediction.tpot_s <= margin_late * strictest_s)
                and (soonest is None or prediction.ttft_s < soonest.prediction.ttft_s)
            ):
                soonest = OpenServer(backend, prediction)
            if len(found) == enough:
                break
        return found if found or soonest is None else [soonest]

    def expect(self, tracked: TrackedRequest) -> None:
        """Take in an arrival, from which it is known what servers have to be ready for."""
        if self._headroom is not None:
            self._headroom.arrived(tracked)

    def why_closed(
        self, tracked: TrackedRequest, backend: BackendState, *, now: float
    ) -> ClosedReason:
        """Tell why a server was not open to a request, cheaply: without a forecast."""
        if backend.ejected:
            return ClosedReason.EJECTED
        if self.is_full(backend, now=now):
            return ClosedReason.FULL
        if self._fits(backend, tracked, now):
            return ClosedReason.FORECAST_OR_TURN
        adapter = backend.adapter_of(tracked.target)
        if is_held(backend, tracked) or (
            adapter is not None and not backend.adapters.admits(adapter)
        ):
            return ClosedReason.ADAPTER_SLOT
        return ClosedReason.NO_ROOM

    def saturation(self, backend: BackendState) -> float:
        """Share in use of the scarcest thing there: places, prefill ahead, KV blocks, pace.

        At 1 the server takes no more of what is like those that run there. Pace is the TPOT last
        looked at, over what the strictest objective of those in flight allows.
        """
        policy = self._policy
        places = max(1, policy.max_requests_per_backend)
        backlog = max(1.0, policy.engine_backlog_steps * backend.chunk_budget_tokens)
        used = (backend.sequences + backend.external_running) / places
        used = max(used, backend.pending_prefill_tokens / backlog)
        if backend.kv_capacity_tokens:
            reserved_tokens = backend.kv_reserved_tokens - backend.shared.saved_tokens
            used = max(used, reserved_tokens / backend.kv_capacity_tokens)
        allowed_s = policy.margin_critical * backend.strictest_tpot_s
        return max(used, pace_s(backend) / allowed_s)

    def margin_of(self, tracked: TrackedRequest) -> float:
        """The share of its bounds that a request's forecast may use."""
        if is_critical(tracked.service.priority):
            return self._policy.margin_critical
        return self._policy.margin_non_critical

    def place_hold(
        self, tracked: TrackedRequest, backends: Sequence[BackendState]
    ) -> BackendState | None:
        """Let one adapter drain for a request that waits for a slot; None if it need not.

        The least used adapter of the pool is chosen; at most half of `backends` are held.
        """
        free = [b for b in backends if b.hold is None and b.adapters.active]
        if any(b.has_slot_for(tracked.target) for b in backends) or 2 * len(free) <= len(backends):
            return None
        chosen = min(free, key=lambda b: min(b.adapters.active.values()))
        active = chosen.adapters.active
        chosen.hold = Hold(tracked, min(active, key=lambda name: active[name]))
        return chosen

    def soonest_ttft_s(
        self, tracked: TrackedRequest, backends: Iterable[BackendState], *, now: float
    ) -> float:
        """90th percentile of TTFT on the server that would answer first; infinite without one."""
        return min(
            (self._predictor.predict(b, tracked, now=now).ttft_p90_s for b in backends),
            default=float("inf"),
        )

    def is_impossible(self, tracked: TrackedRequest, backends: Sequence[BackendState]) -> bool:
        """Whether not even an idle one of `backends` could keep the objective's bounds.

        False without servers, and while the speed of one of them is not yet known.
        """
        if tracked.service.objective is None or not backends:
            return False
        bound_s = tracked.tpot_bound_s
        for backend in backends:
            if not self._predictor.is_known(backend.id):
                return False
            ttft_s, tpot_s = self._predictor.alone_s(backend, tracked)
            if ttft_s <= tracked.ttft_bound_s and (
                bound_s is None or tpot_s <= self._policy.margin_critical * bound_s
            ):
                return False
        return True

    def _fits(self, backend: BackendState, tracked: TrackedRequest, now: float) -> bool:
        """Whether an adapter slot, places and KV blocks are free: it would run at once.

        A prompt that is longer than the whole cache takes no blocks: it is refused there.
        """
        target = tracked.target
        if target in backend.lora_models:
            if target not in backend.adapters.active and not backend.adapters.admits(target):
                return False
            if backend.hold is not None and is_held(backend, tracked):
                return False
        if self.is_full(backend, now=now):
            return False
        if not backend.in_flight:
            return True  # what is too large for any server runs alone on one
        last = tracked.choices - 1  # is_full has looked at the first sequence
        most = self._policy.max_requests_per_backend
        if last and backend.sequences + backend.external_running + last >= most:
            return False
        kv_tokens = backend.kv_capacity_tokens
        needed = tracked.prompt_tokens + tracked.expected_output_tokens
        return (
            kv_tokens is None
            or backend.kv_reserved_tokens + needed <= kv_tokens
            or tracked.prompt_tokens > kv_tokens
            or kv_shortage(backend, tracked) <= 0.0
        )


def kv_shortage(backend: BackendState, tracked: TrackedRequest) -> float:
    """Tokens of KV cache that are missing for a request; what prompts share is counted once."""
    kv_tokens = backend.kv_capacity_tokens
    if kv_tokens is None:
        return 0.0
    shared, blocks = backend.shared, tracked.request.prefix_blocks
    adapter = backend.adapter_of(tracked.target)
    needed = tracked.prompt_tokens + tracked.expected_output_tokens
    needed -= shared.in_common(adapter, blocks, tracked.block_tokens)
    return backend.kv_reserved_tokens - shared.saved_tokens + needed - kv_tokens


def exceeds(backend: BackendState, tracked: TrackedRequest) -> bool:
    """Whether the prompt is longer than the server can take: it will refuse it at once."""
    kv_tokens = backend.kv_capacity_tokens
    if kv_tokens is not None and tracked.prompt_tokens > kv_tokens:
        return True
    served = backend.models.get(tracked.target)
    longest = None if served is None else served.max_model_len
    return longest is not None and tracked.prompt_tokens > _SURELY_TOO_LONG * longest


def is_held(backend: BackendState, tracked: TrackedRequest) -> bool:
    """Whether the slot that the request would take or keep is to become free for another.

    Of the requests that are more entitled than that one, none is kept off.
    """
    hold = backend.hold
    if hold is None or hold.holder is tracked or tracked.target not in backend.lora_models:
        return False
    if lane_of(tracked) > lane_of(hold.holder):
        return False
    return tracked.target == hold.adapter or tracked.target not in backend.adapters.active
