"""Forecasts against outcomes, as the request log tells both, with servers of unequal speed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import orjson

from benchmarks.live.conversation import ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.site import BASE_MODEL, Site

_TTFT_ERROR = 0.15
_TPOT_ERROR = 0.105
"""1.5 times the errors that are aimed at in virtual time, .10 and .07 (docs/benchmarks.md)."""
_WARMUP_SHARE = 0.25
_LOGGED_WITHIN_S = 5.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastsPlan:
    """What is asked.

    Attributes:
        requests: how many, the first quarter of which is not judged.
        rate_rps: of their Poisson arrivals.
        models: asked for evenly: adapters, beside the base model.
        slow: the first so many servers run at half speed.
        request_log: where the gateway writes a line per request.
    """

    requests: int
    rate_rps: float
    models: tuple[str, ...]
    slow: int
    request_log: Path


async def check_forecasts(site: Site, plan: ForecastsPlan) -> list[Finding]:
    """Halve the speed of some servers, send everything, then compare what the log says."""
    for url in site.server_urls[: plan.slow]:
        async with site.http.post(f"{url}/sim/speed", json={"factor": 0.5}) as response:
            response.raise_for_status()
    rng = Random(1)
    async with asyncio.TaskGroup() as group:
        for number in range(plan.requests):
            body = question(
                rng.choice((BASE_MODEL, *plan.models)),
                f"{number} " + "word " * rng.randrange(20, 1_500),  # no two share a prefix
                max_tokens=rng.randrange(30, 250),
                stream=True,
            )
            group.create_task(ask(site.port, f"r{number}", body))
            await asyncio.sleep(rng.expovariate(plan.rate_rps))
    lines = await _logged(plan)
    slow = {id_ for recorder in site.recorders[: plan.slow] for id_ in recorder.exchanges}
    return _compared(plan, lines, slow)


def _compared(
    plan: ForecastsPlan, lines: Sequence[dict[str, Any]], slow_ids: set[str]
) -> list[Finding]:
    completed = [line for line in lines if line["outcome"] == "ok"]
    judged = completed[int(_WARMUP_SHARE * len(completed)) :]
    slow = [line for line in judged if line["request_id"] in slow_ids]
    fast = [line for line in judged if line["request_id"] not in slow_ids]
    findings = [
        equal("requests completed", len(completed), plan.requests),
        Finding(
            "sent to the slow servers",
            f"{len(slow)} of {len(judged)}",
            "less than their number's share",
            0 < len(slow) < len(judged) / 2,
        ),
    ]
    for where, part in (("all", judged), ("full speed", fast), ("half speed", slow)):
        findings.append(_error(f"TTFT error, {where}", part, "ttft", _TTFT_ERROR))
        findings.append(_error(f"TPOT error, {where}", part, "tpot", _TPOT_ERROR))
    return findings


def _error(what: str, lines: Sequence[dict[str, Any]], kind: str, most: float) -> Finding:
    """Median absolute error relative to the outcome; TTFT from dispatch."""
    outcome = "dispatch_ttft_s" if kind == "ttft" else "tpot_s"
    errors = [
        abs(line[f"forecast_{kind}_s"] - line[outcome]) / line[outcome]
        for line in lines
        if line[outcome]
    ]
    found = median(errors) if errors else float("inf")
    return Finding(what, f"{found:.3f}", f"at most {most:g}", found <= most)


async def _logged(plan: ForecastsPlan) -> list[dict[str, Any]]:
    """The lines of the request log, once all are there; TimeoutError."""
    async with asyncio.timeout(_LOGGED_WITHIN_S):
        while True:
            lines = plan.request_log.read_bytes().splitlines()
            if len(lines) >= plan.requests:
                return [orjson.loads(line) for line in lines]
            await asyncio.sleep(_POLL_S)
