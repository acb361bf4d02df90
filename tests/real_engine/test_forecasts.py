"""Forecasts against outcomes, per request, as the request log of the gateway tells both."""

import asyncio
import os
import sys
from datetime import datetime
from math import log
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import orjson
import pytest
from openai import AsyncOpenAI

from tests.real_engine.engines import ADAPTERS, BASE, Engines
from tests.real_engine.questions import QUESTION

pytestmark = [
    pytest.mark.real_engine,
    pytest.mark.skipif("REQUEST_LOG" not in os.environ, reason="not through a gateway"),
]

_NAME = "forecast-"
_KINDS = 20
_OF_EACH = 10
_REQUESTS = _KINDS * _OF_EACH
_RATE_RPS = 4.0
_MOST_AT_ONCE = 12
"""Where the machine is too slow for that rate requests wait here: the gateway would refuse some."""
_NEWEST = 20
_QUIET = 0.25
"""No less error is asked for, however quiet the machine is."""
_WORSE = 1.5
"""Times the error of the plain estimate that the forecasts' error may be."""
_TILTED = 1.6
"""Times too low or too high that forecasts may be in the middle, and more only as far as the plain
estimate is: the machine has then become slower or faster all the while."""


class _Kind(NamedTuple):
    """Requests that are alike in all that takes time, and share no prefix."""

    model: str
    words: str
    max_tokens: int


def _kinds(rng: Random) -> list[_Kind]:
    return [
        _Kind(
            model=rng.choice((BASE, BASE, *ADAPTERS[:2])),
            words=" ".join(rng.choices(("one", "two", "three", "four"), k=rng.randrange(300))),
            max_tokens=16 + 3 * number,
        )
        for number in range(_KINDS)
    ]


async def _ask(client: AsyncOpenAI, kind: _Kind, number: int) -> None:
    stream = await client.chat.completions.create(
        model=kind.model,
        messages=[{"role": "user", "content": f"{number:04} {QUESTION} {kind.words}"}],
        max_tokens=kind.max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
        extra_headers={"X-Request-Id": f"{_NAME}{number}"},
    )
    async for _ in stream:
        pass


def _logged() -> list[dict[str, Any]]:
    lines = map(orjson.loads, Path(os.environ["REQUEST_LOG"]).read_bytes().splitlines())
    return [line for line in lines if line["request_id"].startswith(_NAME)]


async def _all_logged() -> list[dict[str, Any]]:
    """The lines of all requests, once they are written."""
    async with asyncio.timeout(10.0):
        while len(lines := _logged()) < _REQUESTS:
            await asyncio.sleep(0.005)
    return lines


class _Made(NamedTuple):
    """What was expected of one request when it was dispatched, and what came, in seconds.

    The plain estimate is the median of the newest outcomes known then. With the engines on cores
    that they share with the gateway, the test and others, times vary more from one moment to the
    next than from one request to another: it tells how well they could be known.
    """

    forecast: float
    plain: float
    outcome: float


class _Judged(NamedTuple):
    """How forecasts turned out: medians of their relative error, and of outcome / forecast.

    `plain_error` and `plain_times` are the same of the plain estimates.
    """

    error: float
    plain_error: float
    times: float
    plain_times: float

    @property
    def sane(self) -> bool:
        near = self.error < _WORSE * max(_QUIET, self.plain_error)
        tilt = min(abs(log(self.times)), abs(log(self.times / self.plain_times)))
        return near and tilt < log(_TILTED)


def _judged(lines: list[dict[str, Any]], forecast: str, outcome: str) -> _Judged:
    ended = [(datetime.fromisoformat(line["time"]).timestamp(), line) for line in lines]
    made: list[_Made] = []
    for ended_at, line in ended:
        dispatched_at = ended_at - line["e2e_s"] + line["dispatched_s"]
        known = [earlier[outcome] for at, earlier in ended if at < dispatched_at]
        if len(known) >= _NEWEST:
            made.append(_Made(line[forecast], median(known[-_NEWEST:]), line[outcome]))
    return _Judged(
        error=median(abs(each.forecast - each.outcome) / each.outcome for each in made),
        plain_error=median(abs(each.plain - each.outcome) / each.outcome for each in made),
        times=median(each.outcome / each.forecast for each in made),
        plain_times=median(each.outcome / each.plain for each in made),
    )


async def test_forecasts_are_sane(
    client: AsyncOpenAI, engines: Engines, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = Random(1)
    asked = _kinds(rng) * _OF_EACH
    rng.shuffle(asked)
    places = asyncio.Semaphore(_MOST_AT_ONCE)

    async def ask(kind: _Kind, number: int) -> None:
        try:
            await _ask(client, kind, number)
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for number, kind in enumerate(asked):
            await places.acquire()
            group.create_task(ask(kind, number))
            await asyncio.sleep(rng.expovariate(_RATE_RPS))
    await engines.become_idle(within_s=30.0)
    lines = await _all_logged()
    assert [line["outcome"] for line in lines] == ["ok"] * _REQUESTS
    assert all(1e-4 < line["forecast_ttft_s"] < 60.0 for line in lines)
    assert all(1e-4 < line["forecast_tpot_s"] < 10.0 for line in lines)
    ttft = _judged(lines, "forecast_ttft_s", "dispatch_ttft_s")
    tpot = _judged(lines, "forecast_tpot_s", "tpot_s")
    with capsys.disabled():
        for name, judged in (("TTFT", ttft), ("TPOT", tpot)):
            sys.stdout.write(
                f"\n{name}: median error {judged.error:.3f}, outcome {judged.times:.2f} times the"
                f" forecast; of the median of the newest outcomes {judged.plain_error:.3f},"
                f" {judged.plain_times:.2f}"
            )
        sys.stdout.write("\n")
    assert ttft.sane
    assert tpot.sane
