"""A busy minute of one pool, told to a journal; run as a program, it prints the journal."""

import sys
from collections.abc import Iterator
from random import Random
from typing import IO

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    DeadlinePassed,
    DispatchFailed,
    DrainStarted,
    FailureKind,
    FirstTokenReceived,
    PoliciesChanged,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, BackendLoad, RequestId, TokenUsage
from gateway.scheduling.policy import SchedulingPolicy
from gateway.telemetry.journal import JournalWriter
from tests.builders import make_policy, make_request, make_service, serving

ADAPTERS = ("lora-a", "lora-b", "lora-c")
BACKENDS = tuple(map(BackendId, ("a", "b", "c")))
SEED = 11


def scenario_policy() -> SchedulingPolicy:
    return make_policy(
        make_service("chat", priority=0, targets=[("lora-a", 9.0), ("lora-b", 1.0)]),
        make_service("batch", max_queue_wait_s=2.0),
        slots=3,
        max_loras=2,
    )


def write_scenario(out: IO[bytes], *, requests: int = 300) -> None:
    """Feed a scheduler all kinds of events, and the journal what it saw."""
    policy = scenario_policy()
    scheduler = build_scheduler(policy, Random(SEED))
    journal = JournalWriter(out, policy=policy, seed=SEED)
    rng = Random(5)
    running: list[RequestId] = []
    now = 100.0
    for event in _events(rng, running, requests=requests):
        now += rng.expovariate(20.0)
        decisions = scheduler.handle(event, now=now)
        running += [d.request_id for d in decisions if isinstance(d, Dispatch)]
        journal.observed(event, decisions, now=now)


def _events(rng: Random, running: list[RequestId], *, requests: int) -> Iterator[SchedulerEvent]:
    for backend in BACKENDS:
        yield BackendJoined(backend, serving(*ADAPTERS))
    for number in range(requests):
        service, model = rng.choice((("chat", "chat"), ("batch", "batch"), ("default", "lora-c")))
        yield RequestArrived(make_request(f"r{number}", service=service, model=model))
        if len(running) > 6:
            yield from _ending(rng, running.pop(rng.randrange(len(running))))
        if running and rng.random() < 0.3:
            yield FirstTokenReceived(rng.choice(running))
            backend = rng.choice(BACKENDS)
            yield ResponseProgressed(backend, tuple((id_, number) for id_ in running), 100.0)
        if rng.random() < 0.2:
            load = BackendLoad(running=rng.randrange(5), active_adapters=("lora-a", "lora-x"))
            yield BackendLoadReported(rng.choice(BACKENDS), load, 100.0 + number)
        yield DeadlinePassed()
    yield BackendDraining(BACKENDS[0])
    yield BackendLeft(BACKENDS[1])
    yield PoliciesChanged(make_policy(make_service("chat")))
    yield DrainStarted()
    yield RequestArrived(make_request("too-late"))


def _ending(rng: Random, request_id: RequestId) -> Iterator[SchedulerEvent]:
    draw = rng.random()
    if draw < 0.2:
        yield RequestCancelled(request_id)
    elif draw < 0.3:
        yield DispatchFailed(request_id, FailureKind.CONNECT, retryable=True)
    else:
        yield ResponseFinished(request_id, TokenUsage(100, rng.randrange(200)))


if __name__ == "__main__":
    write_scenario(sys.stdout.buffer)
