"""A gateway that is watched by turns: by all that watches it, without the request log, by nothing.

It has no such switch itself; this program is for `observing`, which puts load on it.
    python -m benchmarks.overhead.alternating RESULT serve --config FILE
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Protocol

import orjson

from gateway import assembly
from gateway.__main__ import main
from gateway.server.routes import PoolDirectory
from gateway.settings.schema import Settings
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.request_record import RequestRecord
from gateway.telemetry_assembly import Telemetry, build_telemetry

_TURN_S = 0.1


class Watching(Protocol):
    """Whoever watches; what is put off to be done for many requests at once can be asked for."""

    def request_ended(self, record: RequestRecord) -> None:
        """Take note of it."""
        ...

    def settle(self) -> None:
        """Do what was put off."""
        ...


class _Nobody:
    def request_ended(self, record: RequestRecord) -> None:
        """Look away."""

    def settle(self) -> None:
        """There is nothing to do."""


class Alternating:
    """Changes who watches ten times a second, and notes what each turn cost.

    Attributes:
        turns: requests, seconds of CPU time, and how many of them were spent in watching, by who
            watched; one entry per round of all.
    """

    def __init__(self, observers: Mapping[str, Watching]) -> None:
        """Start with none of them."""
        self._observers = observers
        self._observer: Watching = _Nobody()
        self._requests = 0
        self._watching_s = 0.0
        self.turns: dict[str, list[tuple[int, float, float]]] = {name: [] for name in observers}

    def request_ended(self, record: RequestRecord) -> None:
        """Count it, and tell who watches now."""
        self._requests += 1
        before_s = time.thread_time()
        self._observer.request_ended(record)
        self._watching_s += time.thread_time() - before_s

    def _settle(self) -> None:
        """Do what this turn put off, lest it count for the next one."""
        before_s = time.thread_time()
        self._observer.settle()
        self._watching_s += time.thread_time() - before_s

    async def run(self) -> None:
        """Change turns until cancelled."""
        rng = Random(1)
        names = list(self._observers)
        while True:
            rng.shuffle(names)
            for name in names:
                self._observer = self._observers[name]
                before = (self._requests, time.process_time(), self._watching_s)
                await asyncio.sleep(_TURN_S)
                self._settle()
                after = (self._requests, time.process_time(), self._watching_s)
                requests, cpu_s, watching_s = (b - a for a, b in zip(before, after, strict=True))
                self.turns[name].append((int(requests), cpu_s, watching_s))


def _serve(result: Path, arguments: list[str]) -> int:
    made: list[Alternating] = []

    def build(settings: Settings, pools: PoolDirectory, files: ExitStack) -> Telemetry:
        telemetry = build_telemetry(settings, pools, files)
        unlogged = settings.model_copy(update={"request_log": None})
        without_log = build_telemetry(unlogged, pools, files).observer
        assert isinstance(telemetry.observer, EndedRequests)
        assert isinstance(without_log, EndedRequests)
        observers = {
            "everything": telemetry.observer,
            "no request log": without_log,
            "nothing": _Nobody(),
        }
        made.append(Alternating(observers))
        background = [*telemetry.background, made[0]]
        return telemetry._replace(observer=made[0], background=background)

    assembly.build_telemetry = build
    status = main(arguments)
    result.write_bytes(orjson.dumps(made[0].turns))
    return status


if __name__ == "__main__":
    sys.exit(_serve(Path(sys.argv[1]), sys.argv[2:]))
