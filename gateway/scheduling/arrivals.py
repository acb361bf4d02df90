"""What becomes of a request that arrives: a server at once, a place in the queue, or a refusal."""

from collections.abc import Sequence

from gateway.scheduling.admission_queue import lane_of
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.decisions import Decision, RefusalReason
from gateway.scheduling.model import InferenceRequest, RequestId, RequestPhase, is_critical
from gateway.scheduling.prefix_home import home_of
from gateway.scheduling.refusals import Refusals
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.stages import Stages
from gateway.scheduling.tracked_request import TrackedRequest


class Arrivals:
    """Takes requests in, and lets them wait."""

    def __init__(
        self,
        *,
        knowledge: Knowledge,
        stages: Stages,
        rules: Rules,
        refusals: Refusals,
        tracked: dict[RequestId, TrackedRequest],
        decisions: list[Decision],
    ) -> None:
        """Put those that are not refused into `tracked`; add to `decisions`."""
        self._queue = knowledge.queue
        self._ledger = knowledge.ledger
        self._adherence = knowledge.adherence
        self._stages = stages
        self._turns = stages.turns
        self._dispatcher = stages.dispatcher
        self._rules = rules
        self._refusals = refusals
        self._tracked = tracked
        self._decisions = decisions

    def reconfigure(self, rules: Rules) -> None:
        """Judge by other rules from now on."""
        self._rules = rules

    def arrived(self, request: InferenceRequest, *, now: float) -> None:
        """Decide on a request that is not tracked yet."""
        intake, capacity, turns = self._stages.intake, self._rules.capacity, self._turns
        tracked = intake.track(request, now=now)
        if isinstance(tracked, RefusalReason):
            self._refusals.reject(request.id, tracked)
            return
        serving = self._ledger.serving(tracked.target)
        if capacity.is_impossible(tracked, serving):
            if not is_critical(tracked.service.priority):
                self._adherence.settle(tracked, missed=True, burns=False, now=now)
                self._refusals.reject(request.id, RefusalReason.OBJECTIVE_IMPOSSIBLE)
                return
            intake.lift_bounds(tracked)
        capacity.expect(tracked)
        if self._queue.requests:
            tracked.home = home_of(tracked, serving)
        if not self._queue.requests or not self._queue.has_flow(tracked):
            servers = turns.open_to_arrival(tracked, serving, now=now)
            if servers and self._queue.requests and self._fill_before(tracked, servers, now):
                servers = turns.open_to_arrival(tracked, serving, now=now)
            if servers:
                self._pass(tracked, servers, now)
                return
        self._enqueue(tracked, now)

    def wait(self, tracked: TrackedRequest, *, now: float) -> None:
        """Let a request wait, for those that are given up for it if there are any."""
        given_up = self._stages.preemption.for_arrival(tracked, now=now)
        self._stages.admission.wait(tracked, room_comes=bool(given_up), now=now)
        self._refusals.preempt(given_up, now=now)

    def _fill_before(
        self, tracked: TrackedRequest, servers: Sequence[OpenServer], now: float
    ) -> bool:
        """Serve those first that are not less entitled and that time has opened a server for."""
        backends = [server.backend for server in servers]
        dispatches = self._dispatcher.fill(backends, least=lane_of(tracked), now=now)
        self._decisions += dispatches
        return bool(dispatches)

    def _pass(self, tracked: TrackedRequest, servers: Sequence[OpenServer], now: float) -> None:
        """Serve an arrival before those that wait."""
        self._tracked[tracked.request.id] = tracked
        if self._queue.requests:
            self._turns.overtakes(tracked, servers)
        self._decisions.append(self._dispatcher.dispatch(tracked, servers, now=now))
        if self._queue.requests:
            backend = self._stages.flights.backend_of(tracked)
            self._decisions += self._dispatcher.fill([backend], now=now)

    def _enqueue(self, tracked: TrackedRequest, now: float) -> None:
        """Let an arrival wait, or refuse it."""
        admission = self._stages.admission
        servers_kept = False
        refusal = admission.refusal_of(tracked, now=now)
        while refusal is None and not self._queue.has_room(tracked):
            displaced = self._queue.displaced_by(tracked)
            if displaced is None:
                self._adherence.settle(tracked, missed=True, now=now)
                refusal = RefusalReason.QUEUE_FULL
            else:
                servers_kept = servers_kept or self._turns.detains(displaced)
                self._refusals.evict(displaced, RefusalReason.DISPLACED, now=now)
        if refusal is not None:
            tracked.enter(RequestPhase.REJECTED)
            retry_after_s = admission.retry_after_s(now=now)
            self._refusals.reject(tracked.request.id, refusal, retry_after_s=retry_after_s)
            return
        self._tracked[tracked.request.id] = tracked
        self.wait(tracked, now=now)
        # A late request gains nothing by waiting: the best of the open servers will do.
        if tracked.late or servers_kept:
            self._decisions += self._dispatcher.fill(self._ledger.backends, now=now)
