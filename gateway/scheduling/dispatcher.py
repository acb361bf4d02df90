"""Sends requests to servers: picks, reserves, charges, and keeps why.

Why a changed server is all that needs a look when something is released: by rule 5 every other
server was closed to every head before, and nothing about it has changed. Only a head that came up
because the one before it left is new to all servers.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.scheduling.admission_queue import LAST_LANE, Lane
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import ClosedReason, OpenServer
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.explanations import Explanations
from gateway.scheduling.flights import Flights
from gateway.scheduling.model import BackendId, RequestId, RequestPhase, is_critical
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.snapshot import Explanation
from gateway.scheduling.tracked_request import TrackedRequest
from gateway.scheduling.turns import Turns

_FEW: Final = 12
"""Up to so many servers, an explanation tells of each why it was closed."""


class Dispatcher:
    """Fills servers with requests that wait, and serves those that need not."""

    def __init__(
        self, *, knowledge: Knowledge, turns: Turns, flights: Flights, rules: Rules
    ) -> None:
        """Serve in the order of `turns`; reserve with `flights`."""
        self._queue = knowledge.queue
        self._ledger = knowledge.ledger
        self._drain_rate = knowledge.drain_rate
        self._turns = turns
        self._flights = flights
        self._rules = rules
        self._explanations = Explanations()

    def reconfigure(self, rules: Rules) -> None:
        """Pick by other rules from now on."""
        self._rules = rules

    def explain(self, request_id: RequestId) -> Explanation | None:
        """Why a recent request was sent where it was, or None."""
        return self._explanations.find(request_id)

    def dispatch(
        self, tracked: TrackedRequest, servers: Sequence[OpenServer], *, now: float
    ) -> Dispatch:
        """Send the request to the best of `servers`, all open to it."""
        choice = self._rules.picker.pick(tracked, servers, now=now)
        backend = choice.server.backend
        tracked.enter(RequestPhase.DISPATCHED)
        forecast = self._flights.begin(tracked, choice.server, now=now)
        self._drain_rate.dispatched(critical=is_critical(tracked.service.priority), now=now)
        self._turns.charge(tracked)
        self._rules.order.served(tracked, output_tokens=tracked.expected_output_tokens)
        if tracked.attempts == 1:
            self._rules.retries.earn()
        serving = self._ledger.serving(tracked.target)
        closed = self._closed(tracked, servers, serving, now)
        self._explanations.keep(tracked, choice, serving, closed, now)
        return Dispatch(
            tracked.request.id,
            backend.id,
            tracked.target,
            forecast,
            tracked.attempts,
        )

    def _closed(
        self,
        tracked: TrackedRequest,
        servers: Sequence[OpenServer],
        serving: Sequence[BackendState],
        now: float,
    ) -> dict[BackendId, ClosedReason]:
        """Why others that serve the model were not to choose from; of many servers, nothing."""
        if len(serving) > _FEW or len(serving) == len(servers):
            return {}
        compared = [server.backend for server in servers]
        why_closed, tried = self._rules.capacity.why_closed, tracked.tried
        return {
            backend.id: ClosedReason.TRIED
            if (backend.id, backend.lives) in tried
            else why_closed(tracked, backend, now=now)
            for backend in serving
            if backend not in compared
        }

    def fill(
        self, changed: Iterable[BackendState], *, least: Lane = LAST_LANE, now: float
    ) -> list[Dispatch]:
        """Dispatch waiting heads to servers that may have become open, until none fits.

        Only heads in `least` and the lanes before it are served.
        """
        is_full = self._rules.capacity.is_full
        surfaced: list[TrackedRequest] = []
        dispatches: list[Dispatch] = []
        while self._queue.requests:
            changed = [b for b in changed if not is_full(b, now=now)]
            head, servers = self._turns.next_dispatch(changed, surfaced, least=least, now=now)
            if head is None:
                break
            self._turns.end_hold(head)
            if self._turns.detains(head):
                changed = self._ledger.backends  # they are no longer kept for it, or left by it
            successor = self._queue.take_head(head)
            if successor is not None:
                surfaced.append(successor)
            dispatches.append(dispatch := self.dispatch(head, servers, now=now))
            # What is sent there may make room for others: they share a prompt, or a slot is gone
            # for which the rest of the server was kept.
            backend = self._ledger.get(dispatch.backend_id)
            if backend is not None and backend not in changed:
                changed = [*changed, backend]
        return dispatches
