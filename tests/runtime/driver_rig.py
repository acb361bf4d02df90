"""What the tests of the scheduler driver share."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from gateway.runtime.scheduler_driver import SchedulerDriver, SchedulerObserver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import BackendJoined, SchedulerEvent
from gateway.scheduling.model import BackendId, InferenceRequest
from gateway.scheduling.policy import QueuePolicy
from tests.builders import make_policy, make_request, make_service, serving

A, B = BackendId("a"), BackendId("b")
QUEUE_TIMEOUT_S = 30.0


class Sightings:
    """An observer that keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, SchedulerEvent, tuple[Decision, ...]]] = []

    def observed(self, event: SchedulerEvent, decisions: Sequence[Decision], *, now: float) -> None:
        self.seen.append((now, event, tuple(decisions)))

    def events(self, kind: type[SchedulerEvent]) -> list[SchedulerEvent]:
        return [event for _, event, _ in self.seen if isinstance(event, kind)]

    def times(self, kind: type[SchedulerEvent]) -> list[float]:
        return [at for at, event, _ in self.seen if isinstance(event, kind)]


def driver_of(
    *backends: BackendId,
    slots: int = 1,
    observers: Sequence[SchedulerObserver] = (),
    queue_timeout_s: float = QUEUE_TIMEOUT_S,
    preempts: bool = False,
) -> SchedulerDriver:
    """A driver of a pool whose servers take `slots` requests each.

    Its services: the Critical `chat`, and `impatient`, whose requests wait at most a second.
    """
    policy = make_policy(
        make_service("chat", priority=0),
        make_service("impatient", max_queue_wait_s=1.0),
        slots=slots,
        queue=QueuePolicy(timeout_s=queue_timeout_s, preempts=preempts),
    )
    driver = SchedulerDriver(
        scheduler=build_scheduler(policy, Random(1)),
        clock=asyncio.get_running_loop().time,
        observers=observers,
    )
    for backend in backends:
        driver.deliver(BackendJoined(backend, serving()))
    return driver


def request(request_id: str = "r", *, service: str = "chat") -> InferenceRequest:
    return make_request(request_id, service=service)


def in_flight(driver: SchedulerDriver) -> int:
    return sum(backend.requests for backend in driver.snapshot().backends)


async def until(condition: Callable[[], bool]) -> None:
    """Give the other tasks turns, without letting time pass."""
    for _ in range(20):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("has not come about in 20 turns of the loop")
