"""Which Non-Critical requests are given up for Critical ones that no server is open to.

Only where that is wanted. Given up are requests that were dispatched and have no token yet: on one
server, the least entitled first, and as few as make room. Where room is on its way already, because
some were given up and their streams are not known to be closed, no more are asked for. What
decoding streams take is not given up: where the pace is what closes a server, nothing helps.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import islice
from math import ceil
from typing import Final, NamedTuple

from gateway.scheduling.admission_queue import ON_TIME, lane_of
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import HURRIES_AFTER, kv_shortage
from gateway.scheduling.model import RequestPhase, is_critical
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.server_outlook import keeps_pace
from gateway.scheduling.tracked_request import TrackedRequest
from gateway.scheduling.turns import Turns, is_kept

_HEADS_HELPED: Final = 8
_SERVERS_LOOKED_AT: Final = 16


class _Lacking(NamedTuple):
    """What a server has too little of for a request; nothing is lacking where none is above 0."""

    places: float
    prefill_tokens: float
    kv_tokens: float
    slot: bool

    @property
    def nothing(self) -> bool:
        return max(self.places, self.prefill_tokens, self.kv_tokens) <= 0.0 and not self.slot

    def without(self, given_up: Sequence[TrackedRequest]) -> bool:
        """Whether nothing but the slot is lacking once these are gone."""
        return (
            sum(t.choices for t in given_up) >= self.places
            and sum(t.uncached_tokens for t in given_up) >= self.prefill_tokens
            and sum(t.prompt_tokens + t.expected_output_tokens for t in given_up) >= self.kv_tokens
        )


class Preemption:
    """Chooses who is given up. The scheduler does it, and tells."""

    def __init__(self, *, knowledge: Knowledge, turns: Turns, rules: Rules) -> None:
        """Make room for those whose turn it is by `turns`."""
        self._queue = knowledge.queue
        self._ledger = knowledge.ledger
        self._predictor = knowledge.predictor
        self._turns = turns
        self._rules = rules

    def reconfigure(self, rules: Rules) -> None:
        """Judge by other rules from now on."""
        self._rules = rules

    def for_arrival(self, tracked: TrackedRequest, *, now: float) -> list[TrackedRequest]:
        """Requests to give up so that a Critical one which is about to wait finds a server open.

        None if older requests of its flow wait: what they could have had is not for it.
        """
        if not self._is_wanted or not is_critical(tracked.service.priority):
            return []
        if tracked.impossible or self._queue.has_flow(tracked):
            return []
        own = lane_of(tracked)
        kept_for = [
            head
            for lane in self._queue.lanes()
            if lane >= own
            for head in self._queue.heads(lane)
            if self._turns.keeps_servers(head)
        ]
        return self._fewest_of(self._yielding(), tracked, kept_for, now)[0]

    def for_waiting(self, *, now: float) -> list[TrackedRequest]:
        """Requests to give up so that heads of the queue which can be on time find servers open."""
        given_up: list[TrackedRequest] = []
        if not self._is_wanted or not self._queue.critical_requests:
            return given_up
        yielding = self._yielding()
        kept_for: list[TrackedRequest] = []
        for head in islice(self._heads(now), _HEADS_HELPED) if yielding else ():
            chosen, backend = self._fewest_of(yielding, head, kept_for, now)
            if backend is not None:
                given_up += chosen
                del yielding[backend]
            if self._turns.keeps_servers(head):
                kept_for.append(head)
        return given_up

    @property
    def _is_wanted(self) -> bool:
        return self._rules.policy.queue.preempts

    def _heads(self, now: float) -> Iterator[TrackedRequest]:
        """Critical requests that can still be on time, in order of service."""
        for lane in self._queue.lanes():
            if lane[0] == ON_TIME:
                yield from self._rules.order.ordered(self._queue.heads(lane), now=now)

    def _yielding(self) -> dict[BackendState, list[TrackedRequest]]:
        """Of the servers with most prefill pending, those who may be given up."""
        busy = [
            backend
            for backend in self._ledger.backends
            if backend.pending_prefill_tokens and backend.usable and backend.hold is None
        ]
        if len(busy) > _SERVERS_LOOKED_AT:
            busy = nlargest(_SERVERS_LOOKED_AT, busy, key=lambda b: b.pending_prefill_tokens)
        found = ((backend, _least_entitled_first(backend)) for backend in busy)
        return {backend: requests for backend, requests in found if requests}

    def _fewest_of(
        self,
        yielding: Mapping[BackendState, Sequence[TrackedRequest]],
        head: TrackedRequest,
        kept_for: Sequence[TrackedRequest],
        now: float,
    ) -> tuple[list[TrackedRequest], BackendState | None]:
        """Whom to give up on the server where that are fewest, and the server; or nobody."""
        fewest: list[TrackedRequest] = []
        where: BackendState | None = None
        for backend, requests in yielding.items():
            if backend.takes(head.target) and not is_kept(backend, kept_for):
                chosen = self._fewest(head, backend, requests, now)
                if chosen and (where is None or len(chosen) < len(fewest)):
                    fewest, where = chosen, backend
        return fewest, where

    def _fewest(
        self,
        head: TrackedRequest,
        backend: BackendState,
        yielding: Sequence[TrackedRequest],
        now: float,
    ) -> list[TrackedRequest]:
        """As few of `yielding` as make room for the head; empty if all would not, or none need."""
        lacking = self._lacking(head, backend, now)
        if lacking is None or lacking.nothing:
            return []
        chosen = _slot_holders(backend, yielding) if lacking.slot else []
        if lacking.slot and not chosen:
            return []
        needed = len(chosen)
        for tracked in yielding:
            if lacking.without(chosen):
                break
            if tracked not in chosen:
                chosen.append(tracked)
        if not lacking.without(chosen):
            return []
        for tracked in reversed(chosen[needed:]):  # a large one may have made smaller ones needless
            rest = [other for other in chosen if other is not tracked]
            if lacking.without(rest):
                chosen = rest
        return chosen

    def _lacking(self, head: TrackedRequest, backend: BackendState, now: float) -> _Lacking | None:
        """What closes the server to the head, or None if that is nothing that can be given up."""
        policy, capacity = self._rules.policy.capacity, self._rules.capacity
        if backend.ejected or backend.failed(head) or capacity.engine_queues(backend, now=now):
            return None
        prediction = self._predictor.predict(backend, head, now=now)
        margin = capacity.margin_of(head)
        tpot_s = float("inf") if head.tpot_bound_s is None else head.tpot_bound_s
        strictest_s = min(tpot_s, backend.strictest_tpot_s)
        waited_s = 0.0 if head.service.objective is None else now - head.arrived_at
        hurries = waited_s > HURRIES_AFTER * head.ttft_bound_s  # only Critical requests preempt
        if not keeps_pace(backend, prediction, margin * strictest_s, strictest_s, hurries=hurries):
            return None
        late_s = prediction.ttft_s - margin * (head.ttft_bound_s - waited_s)
        late_tokens = self._prefill_behind(backend, late_s) if late_s > 0.0 else 0.0
        if late_tokens is None:
            return None
        places = backend.sequences + backend.external_running + head.choices
        backlog = policy.engine_backlog_steps * backend.chunk_budget_tokens
        over_backlog = backend.pending_prefill_tokens - backlog
        return _Lacking(
            places=places - policy.max_requests_per_backend,
            prefill_tokens=max(late_tokens, over_backlog + 1.0 if over_backlog >= 0.0 else 0.0),
            kv_tokens=kv_shortage(backend, head),
            slot=not backend.has_slot_for(head.target),
        )

    def _prefill_behind(self, backend: BackendState, late_s: float) -> float | None:
        """Prefill tokens that make so many seconds, or None if not so many can be taken back.

        What the step under way has begun with it will end.
        """
        outlook = backend.outlook
        per_token_s = outlook.per_prefill_token_s * outlook.ttft_median
        queue = self._predictor.timing(backend.id).queue
        behind = queue.after + max(0, queue.in_step - outlook.room)
        if late_s > per_token_s * behind:
            return None
        return ceil(late_s / per_token_s)


def _least_entitled_first(backend: BackendState) -> list[TrackedRequest]:
    """Who may be given up on a server: lowest level first, and of each the newest dispatch.

    None where some were, and their streams are not known to be closed. The rest of an answer whose
    beginning its client has is never given up.
    """
    found: list[TrackedRequest] = []
    tokens = backend.pending_prefill_tokens
    for tracked in reversed(backend.in_flight.values()):
        if tokens <= 0:
            break  # those before have all had their first token
        if not tracked.prefill_pending:
            continue
        tokens -= tracked.uncached_tokens
        if tracked.phase is RequestPhase.EVICTED:
            return []
        if not is_critical(tracked.service.priority) and tracked.request.target is None:
            found.append(tracked)
    found.sort(key=lambda tracked: tracked.service.priority)
    return found


def _slot_holders(
    backend: BackendState, yielding: Sequence[TrackedRequest]
) -> list[TrackedRequest]:
    """The fewest requests that hold an adapter slot by themselves; empty if no slot gets free."""
    adapters = backend.adapters
    if adapters.slots_in_use > adapters.max_loras:
        return []
    groups = (
        [tracked for tracked in yielding if tracked.adapter == name]
        for name, requests in adapters.active.items()
        if sum(tracked.adapter == name for tracked in yielding) == requests
    )
    return min(groups, key=len, default=[])
