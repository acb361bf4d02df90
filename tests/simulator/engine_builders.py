"""Engines, requests and a small driver for the simulator's tests."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from gateway.simulator.engine import (
    Engine,
    EngineEvent,
    EngineOptions,
    EngineRequest,
    Finished,
    FirstToken,
)
from gateway.simulator.profiles import PROFILES, EngineProfile

H100 = PROFILES["llama3.1-8b-h100-64"]
QUIET = EngineOptions(noise_sigma=0.0)
PLAIN = replace(H100, api_overhead_s=0.0)
"""The measured profile without the API's overhead, so that times are step times."""


def make_engine(
    options: EngineOptions = QUIET, profile: EngineProfile = PLAIN, seed: int = 1
) -> Engine:
    return Engine(profile=profile, rng=Random(seed), options=options)


def make_request(
    name: str,
    *,
    prompt: int = 32,
    output: int = 8,
    adapter: str | None = None,
    prefix: tuple[int, ...] = (),
    priority: int = 0,
    choices: int = 1,
) -> EngineRequest:
    return EngineRequest(
        id=name,
        adapter=adapter,
        prompt_tokens=prompt,
        output_tokens=output,
        prefix_blocks=prefix,
        priority=priority,
        choices=choices,
    )


def run_until_idle(engine: Engine) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    while (at := engine.next_event_at()) is not None:
        events += engine.advance(at)
    return events


def replay(engine: Engine, arrivals: Iterable[tuple[float, EngineRequest]]) -> list[EngineEvent]:
    """Submit each request at its instant and run to the end."""
    events: list[EngineEvent] = []
    for at, request in arrivals:
        while (step := engine.next_event_at()) is not None and step <= at:
            events += engine.advance(step)
        engine.submit(request, now=at)
    return events + run_until_idle(engine)


def first_tokens(events: Iterable[EngineEvent]) -> dict[str, float]:
    return {e.request_id: e.at for e in events if isinstance(e, FirstToken)}


def ends(events: Iterable[EngineEvent]) -> dict[str, float]:
    return {e.request_id: e.at for e in events if isinstance(e, Finished)}
