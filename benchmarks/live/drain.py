"""A gateway that reloads and is then told to end, again and again, under load: nothing is lost."""

import asyncio
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.live.conversation import Conversation, ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.rough_site import BASE_MODEL, RoughSite, rough_site, text_of
from benchmarks.live.steady_load import BROKEN, CRITICAL, CUT, OK, WRONG, services

_DONE = b"data: [DONE]\n\n"
_PROMPTS = 20
_POLL_S = 0.05
_RELOADS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """How many requests, over so many lives of the gateway; half of them are streamed."""

    requests: int
    lives: int = 5
    servers: int = 4
    tokens: int = 40


async def check_drain(plan: DrainPlan, folder: Path) -> list[Finding]:
    """Fill the gateway with requests, reload it, tell it to end, and see what became of them."""
    settings: dict[str, object] = {
        "drain_timeout": "5min",
        "queue_timeout": "5min",
        "max_requests_per_backend": 32,
        "probe_timeout": "30s",  # servers that are starved by other work are not broken
        "pools": [{"name": "pool", "services": services()}],
    }
    async with rough_site(
        servers=plan.servers, time_scale=2.0, settings=settings, folder=folder
    ) as site:
        right = await _right_answers(site, plan)
        results: Counter[str] = Counter()
        exits: Counter[int] = Counter()
        pending: list[int] = []
        reloads = 0.0
        for life in range(plan.lives):
            if life:
                await site.gateway.start()
                await site.all_used()
            share = range(life, plan.requests, plan.lives)
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(_one(site, number, plan, right)) for number in share]
                await _all_inside(site, asked)
                for changed in range(_RELOADS):
                    site.write_config(queue_timeout=300 + changed)
                    await site.reload()
                await asyncio.sleep(5 * _POLL_S)
                reloads += await site.metric("llm_gateway_reloads_total", result="ok")
                pending.append(sum(not task.done() for task in asked))
                site.gateway.send(signal.SIGTERM)
            results.update(task.result() for task in asked)
            exits[await site.gateway.ended()] += 1
        await site.gateway.start()
    failed = {name: count for name, count in results.items() if name != OK}
    return [
        Finding("in flight or waiting at SIGTERM", str(pending), "some", ok=min(pending) > 0),
        equal("requests answered rightly", results[OK], plan.requests),
        equal("requests failed", failed, {}),
        equal("exit statuses", dict(exits), {0: plan.lives}),
        Finding("reloads under load", f"{reloads:.0f}", "some", ok=reloads > 0),
    ]


async def _right_answers(site: RoughSite, plan: DrainPlan) -> list[str]:
    port = int(site.reference.rpartition(":")[2])
    answers = []
    for number in range(_PROMPTS):
        body = question(BASE_MODEL, f"Story {number}", max_tokens=plan.tokens, stream=False)
        answers.append(text_of((await ask(port, f"right-{number}", body)).body))
    return answers


async def _one(site: RoughSite, number: int, plan: DrainPlan, right: list[str]) -> str:
    which = number % _PROMPTS
    stream = bool(number // 7 % 2)
    body = question(CRITICAL, f"Story {which}", max_tokens=plan.tokens, stream=stream)
    try:
        talk: Conversation = await ask(site.port, f"drain-{number}", body)
    except OSError as error:
        return type(error).__name__
    if not talk.complete:
        return CUT
    if talk.status != 200:
        return f"status {talk.status}"
    if stream and not (talk.body.endswith(_DONE) and b'"error":' not in talk.body):
        return BROKEN
    return OK if text_of(talk.body) == right[which] else WRONG


async def _all_inside(site: RoughSite, asked: list[asyncio.Task[str]]) -> None:
    """Wait until the gateway has every request: a balancer would send it no more from here."""
    async with asyncio.timeout(120):
        while True:
            ended = sum(task.done() for task in asked)  # first: who ends meanwhile counts once
            if ended + (await site.state())["tracked_requests"] >= len(asked):
                return
            await asyncio.sleep(_POLL_S)
