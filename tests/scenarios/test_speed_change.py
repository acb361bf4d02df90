"""A server whose speed halves under load, in virtual time."""

from collections.abc import Iterator, Sequence
from random import Random
from statistics import median

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.model import BackendId
from gateway.simulator.engine import Engine, EngineOptions
from gateway.simulator.fleet_model import FleetListeners, FleetOptions, FleetRequest, RequestOutcome
from gateway.simulator.profiles import PROFILES
from gateway.simulator.virtual_fleet import VirtualFleet
from tests.builders import make_policy, make_request

HALVED_AT = 60.0
SLOW = BackendId("a")


def requests(rate_rps: float, until: float) -> Iterator[FleetRequest]:
    rng, at, number = Random(1), 0.0, 0
    while at < until:
        at += rng.expovariate(rate_rps)
        prompt, output = rng.randrange(50, 1_000), rng.randrange(20, 300)
        request = make_request(f"r{number}", prompt_tokens=prompt)
        yield FleetRequest(at, request, prompt, output)
        number += 1


def outcomes() -> list[RequestOutcome]:
    rng = Random(1)
    engines = {
        BackendId(name): Engine(
            profile=PROFILES["llama3.1-8b-h100-64"],
            rng=Random(f"engine {name}"),
            options=EngineOptions(),
        )
        for name in "abc"
    }
    found: list[RequestOutcome] = []

    def on_event(_g: int, now: float, _e: SchedulerEvent, _d: Sequence[Decision]) -> None:
        if now >= HALVED_AT:
            engines[SLOW].set_speed(0.5)

    fleet = VirtualFleet(
        engines=engines,
        policies=[build_scheduler(make_policy(), rng)],
        options=FleetOptions(),
        rng=rng,
        listeners=FleetListeners(on_outcome=found.append, on_event=on_event, in_flight={}),
    )
    fleet.run(requests(24.0, HALVED_AT + 45.0))
    return found


def tpot_error(ended: Sequence[RequestOutcome], start: float, end: float) -> float:
    """Median absolute error of what was forecast for the server within [start, end)."""
    errors = []
    for outcome in ended:
        sent_at, first_at, forecast = (
            outcome.dispatched_at,
            outcome.first_token_at,
            outcome.forecast,
        )
        assert sent_at is not None
        assert first_at is not None
        assert forecast is not None
        if outcome.backend_id == SLOW and start <= sent_at < end:
            actual_s = (outcome.ended_at - first_at) / (outcome.planned.output_tokens - 1)
            errors.append(abs(forecast.tpot_s - actual_s) / actual_s)
    assert len(errors) > 10
    return median(errors)


def test_forecasts_are_as_good_as_before_within_thirty_seconds() -> None:
    ended = outcomes()
    assert tpot_error(ended, HALVED_AT - 30.0, HALVED_AT) < 0.07
    assert tpot_error(ended, HALVED_AT - 4.0, HALVED_AT) > 0.1  # they ran into the change
    assert tpot_error(ended, HALVED_AT + 30.0, HALVED_AT + 45.0) < 0.07
