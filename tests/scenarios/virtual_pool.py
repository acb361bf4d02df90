"""Three simulated servers behind the real scheduler, in virtual time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.model import BackendId
from gateway.scheduling.policy import SchedulingPolicy
from gateway.simulator.engine import Engine, EngineOptions
from gateway.simulator.fleet_model import FleetListeners, FleetOptions, FleetRequest, RequestOutcome
from gateway.simulator.profiles import PROFILES
from gateway.simulator.virtual_fleet import VirtualFleet
from tests.builders import make_policy, make_request

Watch = Callable[[float, Mapping[BackendId, Engine]], None]
"""Called at each event with the instant; may change the engines."""


def requests(rate_rps: float, until: float) -> Iterator[FleetRequest]:
    """Poisson arrivals of 50 to 1,000 tokens in, 20 to 300 out."""
    rng, at, number = Random(1), 0.0, 0
    while at < until:
        at += rng.expovariate(rate_rps)
        prompt, output = rng.randrange(50, 1_000), rng.randrange(20, 300)
        request = make_request(f"r{number}", prompt_tokens=prompt)
        yield FleetRequest(at, request, prompt, output)
        number += 1


def outcomes(
    *,
    rate_rps: float,
    until: float,
    options: FleetOptions,
    policy: SchedulingPolicy | None = None,
    profile: str = "llama3.1-8b-h100-64",
    watch: Watch | None = None,
) -> list[RequestOutcome]:
    """What became of the requests on servers a, b and c, in the order of their ends."""
    engines = {
        BackendId(name): Engine(
            profile=PROFILES[profile],
            rng=Random(f"engine {name}"),
            options=EngineOptions(),
        )
        for name in "abc"
    }
    found: list[RequestOutcome] = []

    def on_event(_g: int, now: float, _e: SchedulerEvent, _d: Sequence[Decision]) -> None:
        if watch is not None:
            watch(now, engines)

    fleet = VirtualFleet(
        engines=engines,
        policies=[build_scheduler(policy or make_policy(), Random(1))],
        options=options,
        rng=Random(1),
        listeners=FleetListeners(on_outcome=found.append, on_event=on_event, in_flight={}),
    )
    fleet.run(requests(rate_rps, until))
    return found
