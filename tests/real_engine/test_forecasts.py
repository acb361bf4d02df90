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

_KINDS = 20
_OF_EACH = 10
_REQUESTS = _KINDS * _OF_EACH
_RATE_RPS = 4.0
_WARMUP = 40
_QUIET = 0.25
"""No less noise is asked for: a perfect median of each kind is known in hindsight only."""
_NOISE = 2.0
"""Times the error of that median that a forecast made in advance may be off."""


class _Kind(NamedTuple):
    """Requests that are alike in all that takes time, and share no prefix.

    No two kinds have the same number of output tokens.
    """

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
    )
    async for _ in stream:
        pass


def _logged() -> list[dict[str, Any]]:
    return [
        orjson.loads(line) for line in Path(os.environ["REQUEST_LOG"]).read_bytes().splitlines()
    ]


async def _logged_since(before: int) -> list[dict[str, Any]]:
    """The lines of all requests, once they are written."""
    async with asyncio.timeout(10.0):
        while len(lines := _logged()) < before + _REQUESTS:
            await asyncio.sleep(0.005)
    return lines[before:]


def _errors(lines: list[dict[str, Any]], forecast: str, outcome: str) -> list[float]:
    return [abs(line[forecast] - line[outcome]) / line[outcome] for line in lines]


def _noise(lines: list[dict[str, Any]], outcome: str) -> float:
    """Median error of the median, in hindsight, of all requests of the same kind.

    Those differ in nothing but when they came: with the engines on cores that they share with the
    gateway, the test and others, that is most of what there is to forecast.
    """
    times: dict[int, list[float]] = {}
    for line in lines:
        times.setdefault(line["completion_tokens"], []).append(line[outcome])
    errors = [abs(median(kind) - each) / each for kind in times.values() for each in kind]
    return median(errors)


async def test_forecasts_are_sane(
    client: AsyncOpenAI, engines: Engines, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(_logged())
    rng = Random(1)
    asked = _kinds(rng) * _OF_EACH
    rng.shuffle(asked)
    async with asyncio.TaskGroup() as group:
        for number, kind in enumerate(asked):
            group.create_task(_ask(client, kind, number))
            await asyncio.sleep(rng.expovariate(_RATE_RPS))
    await engines.become_idle(within_s=30.0)
    lines = await _logged_since(before)
    assert [line["outcome"] for line in lines] == ["ok"] * _REQUESTS
    assert all(1e-4 < line["forecast_ttft_s"] < 60.0 for line in lines)
    assert all(1e-4 < line["forecast_tpot_s"] < 10.0 for line in lines)
    judged = lines[_WARMUP:]
    report, poor = [], []
    for name, forecast, outcome in (
        ("TTFT", "forecast_ttft_s", "dispatch_ttft_s"),
        ("TPOT", "forecast_tpot_s", "tpot_s"),
    ):
        error, noise = median(_errors(judged, forecast, outcome)), _noise(judged, outcome)
        report.append(f"{name} {error:.3f} (of a perfect median of each kind {noise:.3f})")
        if error > _NOISE * max(_QUIET, noise):
            poor.append(report[-1])
    with capsys.disabled():
        sys.stdout.write(f"\nmedian error of forecasts: {', '.join(report)}\n")
    assert not poor
