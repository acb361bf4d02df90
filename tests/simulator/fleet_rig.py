"""Small virtual fleets, and a policy that does as it is told."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import (
    BackendJoined,
    DispatchFailed,
    RequestArrived,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    BackendId,
    Forecast,
    InferenceRequest,
    RequestId,
    ServiceName,
)
from gateway.simulator.engine import Engine, EngineOptions
from gateway.simulator.fleet_model import (
    FleetListeners,
    FleetOptions,
    FleetPolicy,
    FleetRequest,
    RequestOutcome,
)
from gateway.simulator.profiles import PROFILES
from gateway.simulator.virtual_fleet import VirtualFleet

PROFILE = PROFILES["llama3.1-8b-h100-64"]
NO_FORECAST = Forecast(0.0, 0.0, 0.0, 0.0)


class Recorder:
    """Dispatches each request in turn to the servers that joined, and notes what it is told."""

    def __init__(self, *, deadline: float | None = None) -> None:
        self.heard: list[tuple[float, SchedulerEvent]] = []
        self.deadline = deadline
        self._servers: list[BackendId] = []
        self._sent = 0

    def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
        self.heard.append((now, event))
        if isinstance(event, BackendJoined):
            self._servers.append(event.backend_id)
        if isinstance(event, RequestArrived):
            return [self._dispatch(event.request.id, event.request.model)]
        if isinstance(event, DispatchFailed) and event.retryable:
            return [self._dispatch(event.request_id, "base")]
        return ()

    def next_deadline(self) -> float | None:
        return self.deadline

    def of(self, kind: type[SchedulerEvent]) -> list[tuple[float, SchedulerEvent]]:
        return [(at, event) for at, event in self.heard if isinstance(event, kind)]

    def _dispatch(self, request_id: RequestId, model: str) -> Dispatch:
        server = self._servers[self._sent % len(self._servers)]
        self._sent += 1
        return Dispatch(request_id, server, model, NO_FORECAST)


def planned(
    request_id: str,
    at: float,
    *,
    prompt: int = 100,
    output: int = 20,
    model: str = "base",
    streamed: bool = True,
) -> FleetRequest:
    request = InferenceRequest(
        id=RequestId(request_id),
        service=ServiceName("chat"),
        model=model,
        prompt_bytes=4 * prompt,
        body_bytes=4 * prompt,
        streamed=streamed,
    )
    return FleetRequest(at, request, prompt, output)


def run_fleet(
    policies: Sequence[FleetPolicy],
    requests: Iterable[FleetRequest],
    *,
    servers: int = 1,
    options: FleetOptions | None = None,
    engine: EngineOptions | None = None,
    until: float = float("inf"),
    on_event: Callable[[int, float, SchedulerEvent, Sequence[Decision]], None] | None = None,
) -> list[RequestOutcome]:
    """Run to the end; the outcomes in order. Engines have no noise unless options say so."""
    outcomes: list[RequestOutcome] = []
    started = engine or EngineOptions(noise_sigma=0.0)
    fleet = VirtualFleet(
        engines={
            BackendId(f"s{n}"): Engine(profile=PROFILE, rng=Random(n), options=started)
            for n in range(servers)
        },
        policies=policies,
        options=options or FleetOptions(),
        rng=Random(1),
        listeners=FleetListeners(on_outcome=outcomes.append, on_event=on_event),
    )
    fleet.run(requests, until=until)
    return outcomes
