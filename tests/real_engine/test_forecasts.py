"""Forecasts against outcomes, per request, as the request log of the gateway tells both."""

import asyncio
import os
import sys
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
_WARMUP = 40
_QUIET = 0.25
"""No less error is asked for, however quiet the machine is."""
_NEWEST = 20
_WORSE = 1.75
"""Times the error of the median of the newest outcomes that the forecasts' error may be."""
_TILTED = 1.75
"""Times too low or too high that forecasts may be in the middle."""


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


class _Judged(NamedTuple):
    """How forecasts of one quantity turned out, in the order in which the requests ended.

    Attributes:
        error: median of |forecast - outcome| / outcome.
        of_newest: the same of forecasts that are the median of the newest outcomes. With the
            engines on cores that they share with the gateway, the test and others, times vary far
            more from one moment to the next than from one request to another: that is how well
            they can be known there.
        times: median of outcome / forecast.
    """

    error: float
    of_newest: float
    times: float

    @property
    def poor(self) -> bool:
        too_far = self.error > _WORSE * max(_QUIET, self.of_newest)
        return too_far or not 1.0 / _TILTED < self.times < _TILTED


def _judged(lines: list[dict[str, Any]], forecast: str, outcome: str) -> _Judged:
    outcomes = [line[outcome] for line in lines]
    pairs = [(line[forecast], line[outcome]) for line in lines[_WARMUP:]]
    newest = [
        (median(outcomes[number - _NEWEST : number]), outcomes[number])
        for number in range(_WARMUP, len(outcomes))
    ]
    return _Judged(_error(pairs), _error(newest), median(actual / told for told, actual in pairs))


def _error(pairs: list[tuple[float, float]]) -> float:
    return median(abs(told - actual) / actual for told, actual in pairs)


async def test_forecasts_are_sane(
    client: AsyncOpenAI, engines: Engines, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = Random(1)
    asked = _kinds(rng) * _OF_EACH
    rng.shuffle(asked)
    async with asyncio.TaskGroup() as group:
        for number, kind in enumerate(asked):
            group.create_task(_ask(client, kind, number))
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
                f"\n{name}: median error {judged.error:.3f} (of the median of the newest outcomes"
                f" {judged.of_newest:.3f}), outcome over forecast {judged.times:.2f} in the middle"
            )
        sys.stdout.write("\n")
    assert not ttft.poor
    assert not tpot.poor
