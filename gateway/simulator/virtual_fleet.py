"""Engines, gateways and pollers in virtual time: the other driver of the real scheduler.

Rules:
1. One heap of (instant, sequence number, action); arrivals are merged in lazily, so that memory is
   bounded by what is in flight. Nothing reads a clock; all draws come from the injected source.
2. A policy is told what the live driver would tell it: first tokens, progress per server at most
   every `progress_interval_s`, ends with their usage, and polled loads that are old by the time
   they arrive. It never sees a true output length before the end.
3. Between a gateway and an engine every message takes `gateway_delay_s`. An engine is stepped at
   the ends of its steps only; what it did is seen one delay later.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random

from gateway.scheduling.decisions import Decision, Dispatch, RefusalReason
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    DeadlinePassed,
    DispatchFailed,
    FailureKind,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    Forecast,
    RequestId,
    ServedModel,
    TokenUsage,
)
from gateway.simulator.engine import Engine, EngineRequest, Finished, FirstToken
from gateway.simulator.fleet_model import (
    Ending,
    FleetListeners,
    FleetOptions,
    FleetPolicy,
    FleetRequest,
    RequestOutcome,
)

_REARM_S = 0.001
"""A deadline that is still due after it was announced is announced again this much later."""


class _Flight:
    """A request between its arrival and its end."""

    __slots__ = ("dispatched_at", "first_token_at", "forecast", "gateway", "planned", "server")

    def __init__(self, planned: FleetRequest, gateway: "_Gateway") -> None:
        self.planned = planned
        self.gateway = gateway
        self.server: _Server | None = None
        self.dispatched_at: float | None = None
        self.first_token_at: float | None = None
        self.forecast: Forecast | None = None


class _Server:
    """An engine, and what the fleet has to remember of it.

    `flights` are those dispatched to it; `step_at` is the engine's instant on the heap.
    """

    __slots__ = ("alive", "engine", "flights", "id", "progress_armed", "step_at", "stepped_at")

    def __init__(self, backend_id: BackendId, engine: Engine) -> None:
        self.id = backend_id
        self.engine = engine
        self.alive = True
        self.flights: dict[RequestId, _Flight] = {}
        self.step_at: float | None = None
        self.stepped_at = 0.0
        self.progress_armed = False


class _Gateway:
    """One policy and the instant for which its deadline is on the heap."""

    __slots__ = ("armed_at", "index", "policy")

    def __init__(self, index: int, policy: FleetPolicy) -> None:
        self.index = index
        self.policy = policy
        self.armed_at: float | None = None


class VirtualFleet:
    """Runs a workload through one or more gateways that share a pool of engines.

    Attributes:
        now: virtual time, seconds.
    """

    def __init__(
        self,
        *,
        engines: Mapping[BackendId, Engine],
        policies: Sequence[FleetPolicy],
        options: FleetOptions,
        rng: Random,
        listeners: FleetListeners,
    ) -> None:
        """Set up the pool; each policy is one gateway, arrivals are split evenly at random."""
        self.now = 0.0
        self._servers = {key: _Server(key, engine) for key, engine in engines.items()}
        self._gateways = [_Gateway(index, policy) for index, policy in enumerate(policies)]
        self._options = options
        self._rng = rng
        self._listeners = listeners
        self._flights: dict[RequestId, _Flight] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    def run(self, requests: Iterable[FleetRequest], *, until: float = float("inf")) -> None:
        """Feed all requests (in order of arrival) and go on until each has ended.

        What has not ended at `until` ends as UNFINISHED.
        """
        self._start()
        source = iter(requests)
        upcoming = next(source, None)
        while upcoming is not None or self._flights:
            arrives = upcoming is not None and (not self._heap or upcoming.at <= self._heap[0][0])
            if not arrives and not self._heap:
                break
            at = upcoming.at if upcoming is not None and arrives else self._heap[0][0]
            if at > until:
                self.now = until
                break
            self.now = at
            if upcoming is not None and arrives:
                self._arrive(upcoming)
                upcoming = next(source, None)
            else:
                heappop(self._heap)[2]()
        for flight in list(self._flights.values()):
            self._end(flight, Ending.UNFINISHED)

    # Set-up and plumbing

    def _start(self) -> None:
        options = self._options
        base = options.base_model
        models = (ServedModel(base), *(ServedModel(name, base) for name in options.adapters))
        for gateway in self._gateways:
            for server in self._servers.values():
                self._tell(gateway, BackendJoined(server.id, models))
                load = server.engine.load()
                self._tell(gateway, BackendLoadReported(server.id, load, self.now))
                phase = self._rng.random() * options.poll_interval_s
                self._at(phase, partial(self._poll, gateway, server))
        for fault in options.faults:
            self._at(fault.at, partial(self._kill, fault.kill))

    def _at(self, at: float, action: Callable[[], None]) -> None:
        heappush(self._heap, (at, next(self._sequence), action))

    def _tell(self, gateway: _Gateway, event: SchedulerEvent) -> None:
        """Give one event to a policy, carry out its decisions, keep its deadline armed."""
        decisions = gateway.policy.handle(event, now=self.now)
        if self._listeners.on_event is not None:
            self._listeners.on_event(gateway.index, self.now, event, decisions)
        for decision in decisions:
            self._carry_out(decision)
        due = gateway.policy.next_deadline()
        if due is not None and (gateway.armed_at is None or due < gateway.armed_at):
            repeated = isinstance(event, DeadlinePassed) and due <= self.now
            gateway.armed_at = max(due, self.now + (_REARM_S if repeated else 0.0))
            self._at(gateway.armed_at, partial(self._deadline, gateway, gateway.armed_at))

    def _deadline(self, gateway: _Gateway, armed_at: float) -> None:
        if gateway.armed_at == armed_at:
            gateway.armed_at = None
            self._tell(gateway, DeadlinePassed())

    # Requests

    def _arrive(self, planned: FleetRequest) -> None:
        several = len(self._gateways) > 1
        gateway = self._gateways[self._rng.randrange(len(self._gateways)) if several else 0]
        self._flights[planned.request.id] = _Flight(planned, gateway)
        self._listeners.in_flight[planned.request.id] = planned
        self._tell(gateway, RequestArrived(planned.request))

    def _carry_out(self, decision: Decision) -> None:
        flight = self._flights[decision.request_id]
        if not isinstance(decision, Dispatch):
            self._refuse(flight, decision.reason)
            return
        server = self._servers[decision.backend_id]
        flight.server = server
        flight.dispatched_at = self.now
        flight.forecast = decision.forecast
        server.flights[decision.request_id] = flight
        self._at(
            self.now + self._options.gateway_delay_s,
            partial(self._submit, flight, server, decision.model),
        )

    def _refuse(self, flight: _Flight, reason: RefusalReason) -> None:
        """End a request that is given up; one that had been dispatched is closed upstream."""
        server = flight.server
        self._end(flight, Ending.REFUSED, reason)
        if server is not None:
            server.engine.abort(flight.planned.request.id, now=self.now)
            self._tell(flight.gateway, RequestCancelled(flight.planned.request.id))

    def _submit(self, flight: _Flight, server: _Server, model: str) -> None:
        planned = flight.planned
        request = planned.request
        if flight.server is not server or request.id not in self._flights:
            return
        if not server.alive:
            self._fail_later(flight, server, FailureKind.CONNECT)
            return
        accepted = server.engine.submit(
            EngineRequest(
                id=request.id,
                adapter=None if model == self._options.base_model else model,
                prompt_tokens=planned.prompt_tokens,
                output_tokens=planned.output_tokens,
                prefix_blocks=request.prefix_blocks,
                prefix_block_tokens=planned.block_tokens,
                choices=request.choices,
            ),
            now=self.now,
        )
        if not accepted:
            self._fail_later(flight, server, FailureKind.OVERLOADED)
            return
        self._schedule_step(server)
        if self._options.progress_interval_s is not None and not server.progress_armed:
            server.progress_armed = True
            self._at(self.now + self._options.progress_interval_s, partial(self._progress, server))

    def _fail_later(self, flight: _Flight, server: _Server, kind: FailureKind) -> None:
        self._at(
            self.now + self._options.gateway_delay_s, partial(self._fail, flight, server, kind)
        )

    def _fail(self, flight: _Flight, server: _Server, kind: FailureKind) -> None:
        request_id = flight.planned.request.id
        if flight.server is not server or request_id not in self._flights:
            return
        retryable = flight.first_token_at is None
        del server.flights[request_id]
        flight.server = None
        if not retryable:
            self._end(flight, Ending.FAILED)
        self._tell(flight.gateway, DispatchFailed(request_id, kind, retryable))

    def _end(self, flight: _Flight, ending: Ending, reason: RefusalReason | None = None) -> None:
        request_id = flight.planned.request.id
        del self._flights[request_id]
        del self._listeners.in_flight[request_id]
        server = flight.server
        if server is not None:
            server.flights.pop(request_id, None)
        self._listeners.on_outcome(
            RequestOutcome(
                planned=flight.planned,
                ending=ending,
                ended_at=self.now,
                backend_id=None if server is None else server.id,
                dispatched_at=flight.dispatched_at,
                first_token_at=flight.first_token_at,
                forecast=flight.forecast,
                reason=reason,
            )
        )

    # Engines

    def _schedule_step(self, server: _Server) -> None:
        at = server.engine.next_event_at()
        if at is not None and at != server.step_at:
            server.step_at = at
            self._at(at + self._options.gateway_delay_s, partial(self._step, server, at))

    def _step(self, server: _Server, at: float) -> None:
        if server.step_at != at or not server.alive:
            return
        server.step_at = None
        server.stepped_at = at
        for event in server.engine.advance(at):
            flight = self._flights.get(RequestId(event.request_id))
            if flight is None or flight.server is not server:
                continue
            request = flight.planned.request
            if isinstance(event, FirstToken):
                flight.first_token_at = self.now
                if request.streamed:
                    self._tell(flight.gateway, FirstTokenReceived(request.id))
            elif isinstance(event, Finished):
                usage = TokenUsage(
                    flight.planned.prompt_tokens, event.output_tokens, None, event.output_tokens
                )
                self._end(flight, Ending.COMPLETED)
                self._tell(flight.gateway, ResponseFinished(request.id, usage))
        self._schedule_step(server)

    def _progress(self, server: _Server) -> None:
        server.progress_armed = False
        if not server.flights or not server.alive:
            return
        tokens_of = server.engine.output_tokens
        for gateway in self._gateways:
            progress = tuple(
                (request_id, tokens_of(request_id))
                for request_id, flight in server.flights.items()
                if flight.first_token_at is not None
                and flight.gateway is gateway
                and flight.planned.request.streamed
            )
            if progress:
                seen_at = server.stepped_at + self._options.gateway_delay_s
                self._tell(gateway, ResponseProgressed(server.id, progress, seen_at))
        if self._options.progress_interval_s is not None:
            server.progress_armed = True
            self._at(self.now + self._options.progress_interval_s, partial(self._progress, server))

    def _poll(self, gateway: _Gateway, server: _Server) -> None:
        if not server.alive:
            return
        options = self._options
        report = partial(self._report, gateway, server, server.engine.load(), self.now)
        self._at(self.now + options.poll_latency_s, report)
        spread = 1.0 + options.poll_jitter * (2.0 * self._rng.random() - 1.0)
        self._at(self.now + options.poll_interval_s * spread, partial(self._poll, gateway, server))

    def _report(
        self, gateway: _Gateway, server: _Server, load: BackendLoad, taken_at: float
    ) -> None:
        if server.alive:
            self._tell(gateway, BackendLoadReported(server.id, load, taken_at))

    def _kill(self, number: int) -> None:
        """The last living servers die: their streams break, the monitors notice later."""
        living = [server for server in self._servers.values() if server.alive]
        for server in living[-number:]:
            server.alive = False
            for flight in server.flights.values():
                self._fail_later(flight, server, FailureKind.RESET)
            self._at(self.now + self._options.detection_s, partial(self._leave, server))

    def _leave(self, server: _Server) -> None:
        for gateway in self._gateways:
            self._tell(gateway, BackendLeft(server.id))
