"""Engines, gateways and pollers in virtual time: the other driver of the real scheduler.

Rules:
1. Arrivals are merged into the timeline one by one, so that memory is bounded by what is in flight.
   Nothing reads a clock; all draws come from the injected source.
2. A policy is told what the live driver would tell it: first tokens, progress per server at most
   every `progress_interval_s`, ends with their usage, and polled loads that are old by the time
   they arrive. It never sees a true output length before the end.
3. Between a gateway and an engine every message takes `gateway_delay_s`. An engine is stepped at
   the ends of its steps only; what it did is seen one delay later.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from random import Random

from gateway.scheduling.decisions import Decision, Dispatch, RefusalReason
from gateway.scheduling.events import (
    DeadlinePassed,
    DispatchFailed,
    FailureKind,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, RequestId, TokenUsage
from gateway.simulator.engine import Engine, EngineRequest, Finished, FirstToken
from gateway.simulator.fleet_model import (
    Ending,
    FleetListeners,
    FleetOptions,
    FleetPolicy,
    FleetRequest,
    RequestOutcome,
)
from gateway.simulator.fleet_monitor import FleetMonitor
from gateway.simulator.fleet_records import Flight, Gateway, Server
from gateway.simulator.timeline import Timeline

_REARM_S = 0.001
"""A deadline that is still due after it was announced is announced again this much later."""


class VirtualFleet:
    """Runs a workload through one or more gateways that share a pool of engines."""

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
        self._servers = {key: Server(key, engine) for key, engine in engines.items()}
        self._gateways = [Gateway(index, policy) for index, policy in enumerate(policies)]
        self._options = options
        self._rng = rng
        self._listeners = listeners
        self._flights: dict[RequestId, Flight] = {}
        self._timeline = Timeline()
        self._monitor = FleetMonitor(
            gateways=self._gateways,
            timeline=self._timeline,
            options=options,
            rng=rng,
            tell=self._tell,
        )

    @property
    def now(self) -> float:
        """Virtual time, seconds."""
        return self._timeline.now

    def run(self, requests: Iterable[FleetRequest], *, until: float = float("inf")) -> None:
        """Feed all requests (in order of arrival) and go on until each has ended.

        What has not ended at `until` ends as UNFINISHED.
        """
        timeline = self._timeline
        for server in self._servers.values():
            self._monitor.join(server)
        for fault in self._options.faults:
            timeline.at(fault.at, partial(self._kill, fault.kill))
        source = iter(requests)
        upcoming = next(source, None)
        while upcoming is not None or self._flights:
            next_at = timeline.next_at()
            if upcoming is not None and (next_at is None or upcoming.at <= next_at):
                if upcoming.at > until:
                    break
                timeline.now = upcoming.at
                self._arrive(upcoming)
                upcoming = next(source, None)
            elif next_at is None or next_at > until:
                break
            else:
                timeline.run_next()
        for flight in list(self._flights.values()):
            self._end(flight, Ending.UNFINISHED)

    # Gateways

    def _tell(self, gateway: Gateway, event: SchedulerEvent) -> None:
        """Give one event to a policy, carry out its decisions, keep its deadline armed."""
        now = self._timeline.now
        decisions = gateway.policy.handle(event, now=now)
        if self._listeners.on_event is not None:
            self._listeners.on_event(gateway.index, now, event, decisions)
        for decision in decisions:
            self._carry_out(decision)
        due = gateway.policy.next_deadline()
        if due is not None and (gateway.armed_at is None or due < gateway.armed_at):
            repeated = isinstance(event, DeadlinePassed) and due <= now
            gateway.armed_at = max(due, now + (_REARM_S if repeated else 0.0))
            self._timeline.at(gateway.armed_at, partial(self._deadline, gateway, gateway.armed_at))

    def _deadline(self, gateway: Gateway, armed_at: float) -> None:
        if gateway.armed_at == armed_at:
            gateway.armed_at = None
            self._tell(gateway, DeadlinePassed())

    def _arrive(self, planned: FleetRequest) -> None:
        several = len(self._gateways) > 1
        gateway = self._gateways[self._rng.randrange(len(self._gateways)) if several else 0]
        self._flights[planned.request.id] = Flight(planned, gateway)
        self._listeners.in_flight[planned.request.id] = planned
        self._tell(gateway, RequestArrived(planned.request, self._last_chunks(gateway)))

    def _last_chunks(self, gateway: Gateway) -> tuple[tuple[BackendId, float], ...]:
        """The newest chunk that the gateway has had of each server that streams to it."""
        delay_s = self._options.gateway_delay_s
        only = len(self._gateways) == 1
        return tuple(
            (server.id, server.stepped_at + delay_s)
            for server in self._servers.values()
            if server.streams
            and (only or any(f.gateway is gateway for f in server.streams.values()))
        )

    def _carry_out(self, decision: Decision) -> None:
        flight = self._flights[decision.request_id]
        if not isinstance(decision, Dispatch):
            self._refuse(flight, decision.reason)
            return
        server = self._servers[decision.backend_id]
        flight.server = server
        flight.dispatched_at = self._timeline.now
        flight.forecast = decision.forecast
        flight.ahead = len(server.flights)
        server.flights[decision.request_id] = flight
        submit = partial(self._submit, flight, server, decision.model)
        self._timeline.after(self._options.gateway_delay_s, submit)

    def _refuse(self, flight: Flight, reason: RefusalReason) -> None:
        """End a request that is given up; one that had been dispatched is closed upstream."""
        server = flight.server
        self._end(flight, Ending.REFUSED, reason)
        if server is not None:
            request_id = flight.planned.request.id
            server.engine.abort(request_id, now=self._timeline.now)
            self._tell(flight.gateway, RequestCancelled(request_id))

    def _end(self, flight: Flight, ending: Ending, reason: RefusalReason | None = None) -> None:
        request_id = flight.planned.request.id
        del self._flights[request_id]
        del self._listeners.in_flight[request_id]
        server = flight.server
        if server is not None:
            del server.flights[request_id]
            server.streams.pop(request_id, None)
        self._listeners.on_outcome(
            RequestOutcome(
                planned=flight.planned,
                ending=ending,
                ended_at=self._timeline.now,
                backend_id=None if server is None else server.id,
                dispatched_at=flight.dispatched_at,
                first_token_at=flight.first_token_at,
                forecast=flight.forecast,
                ahead=flight.ahead,
                reason=reason,
            )
        )

    # Engines

    def _submit(self, flight: Flight, server: Server, model: str) -> None:
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
            now=self._timeline.now,
        )
        if not accepted:
            self._fail_later(flight, server, FailureKind.OVERLOADED)
            return
        self._schedule_step(server)
        self._monitor.watch_progress(server)

    def _fail_later(self, flight: Flight, server: Server, kind: FailureKind) -> None:
        self._timeline.after(
            self._options.gateway_delay_s, partial(self._fail, flight, server, kind)
        )

    def _fail(self, flight: Flight, server: Server, kind: FailureKind) -> None:
        request_id = flight.planned.request.id
        if flight.server is not server or request_id not in self._flights:
            return
        retryable = flight.first_token_at is None
        if retryable:
            del server.flights[request_id]
            flight.server = None
        else:
            self._end(flight, Ending.FAILED)
        self._tell(flight.gateway, DispatchFailed(request_id, kind, retryable))

    def _schedule_step(self, server: Server) -> None:
        at = server.engine.next_event_at()
        if at is not None and at != server.step_at:
            server.step_at = at
            seen_at = at + self._options.gateway_delay_s
            self._timeline.at(seen_at, partial(self._step, server, at))

    def _step(self, server: Server, at: float) -> None:
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
                flight.first_token_at = self._timeline.now
                if request.streamed:
                    server.streams[request.id] = flight
                    self._tell(flight.gateway, FirstTokenReceived(request.id))
            elif isinstance(event, Finished):
                tokens = event.output_tokens
                self._end(flight, Ending.COMPLETED)
                usage = TokenUsage(flight.planned.prompt_tokens, tokens, None, tokens)
                self._tell(flight.gateway, ResponseFinished(request.id, usage))
        self._schedule_step(server)

    def _kill(self, number: int) -> None:
        """The last living servers die: their streams break, the monitors notice later."""
        living = [server for server in self._servers.values() if server.alive]
        for server in living[-number:]:
            server.alive = False
            for flight in server.flights.values():
                self._fail_later(flight, server, FailureKind.RESET)
            self._monitor.lose(server)
