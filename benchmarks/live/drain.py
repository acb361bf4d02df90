"""A gateway that reloads and is then told to end, again and again, under load: nothing is lost.

At the signal requests wait in its queue, wait for a first byte, stream, or are still sending their
bodies; some streams break after it; others only now send a request over a connection that was idle.
"""

import asyncio
import json
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
_SLOW_ONES = 40
"""One in so many sends its body slowly, and another one asks over an idle connection."""
_AT_ONCE_S = 2.0


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
        "pools": [{"name": "pool", "services": _continued_services()}],
    }
    async with rough_site(
        servers=plan.servers, time_scale=0.5, settings=settings, folder=folder
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
            told_to_end = asyncio.Event()
            late = [number for number in share if number // plan.lives % _SLOW_ONES < 2]
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(_one(site, number, plan, right))
                    for number in sorted(set(share) - set(late))
                ]
                slow = [
                    group.create_task(_late(site, number, plan, right, told_to_end))
                    for number in late
                ]
                await _all_inside(site, asked)
                for changed in range(_RELOADS):
                    site.write_config(queue_timeout=300 + changed)
                    await site.reload()
                await asyncio.sleep(5 * _POLL_S)
                reloads += await site.metric("llm_gateway_reloads_total", result="ok")
                pending.append(sum(not task.done() for task in asked))
                site.gateway.send(signal.SIGTERM)
                told_to_end.set()
                await asyncio.sleep(_POLL_S)
                for server in range(plan.servers):
                    await site.switch(server, "reset")
            results.update(task.result() for task in asked + slow)
            exits[await site.gateway.ended()] += 1
        at_once_s = await _ended_by_a_second_signal(site, plan)
    lines = (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    continued = sum(json.loads(line)["continuations"] for line in lines)
    failed = {name: count for name, count in results.items() if name != OK}
    return [
        Finding("in flight or waiting at SIGTERM", str(pending), "some", ok=min(pending) > 0),
        equal("requests answered rightly", results[OK], plan.requests),
        equal("requests failed", failed, {}),
        equal("exit statuses", dict(exits), {0: plan.lives}),
        Finding("reloads under load", f"{reloads:.0f}", "some", ok=reloads > 0),
        Finding("streams continued while it ended", str(continued), "some", ok=continued > 0),
        Finding(
            "ended by a second signal after",
            "no" if at_once_s is None else f"{at_once_s:.2f} s",
            f"below {_AT_ONCE_S:g} s, status 1",
            ok=at_once_s is not None and at_once_s < _AT_ONCE_S,
        ),
    ]


def _continued_services() -> list[dict[str, object]]:
    return [service | {"continue_broken_streams": True} for service in services()]


async def _right_answers(site: RoughSite, plan: DrainPlan) -> list[str]:
    port = int(site.reference.rpartition(":")[2])
    answers = []
    for number in range(_PROMPTS):
        body = question(BASE_MODEL, f"Story {number}", max_tokens=plan.tokens, stream=False)
        answers.append(text_of((await ask(port, f"right-{number}", body)).body))
    return answers


async def _one(site: RoughSite, number: int, plan: DrainPlan, right: list[str]) -> str:
    try:
        talk = await ask(site.port, f"drain-{number}", _body(number, plan))
    except OSError as error:
        return type(error).__name__
    return _verdict(talk, number, right)


async def _late(
    site: RoughSite, number: int, plan: DrainPlan, right: list[str], told_to_end: asyncio.Event
) -> str:
    """Be on the way when the gateway is told to end: with half a body, or all of it."""
    talk = Conversation(site.port, f"drain-{number}", _body(number, plan))
    if number // plan.lives % _SLOW_ONES:
        talk.hold_back()
    else:
        talk.hold_back(all_of_it=True)
    try:
        async with talk:
            await talk.send_rest(told_to_end)
            await talk.read_all()
    except OSError as error:
        return type(error).__name__
    return _verdict(talk, number, right)


def _body(number: int, plan: DrainPlan) -> dict[str, object]:
    text = f"Story {number % _PROMPTS}"
    return question(CRITICAL, text, max_tokens=plan.tokens, stream=_streamed(number))


def _streamed(number: int) -> bool:
    return bool(number // 7 % 2)


def _verdict(talk: Conversation, number: int, right: list[str]) -> str:
    if not talk.complete:
        return CUT
    if talk.status != 200:
        return f"status {talk.status}"
    if _streamed(number) and not (talk.body.endswith(_DONE) and b'"error":' not in talk.body):
        return BROKEN
    return OK if text_of(talk.body) == right[number % _PROMPTS] else WRONG


async def _ended_by_a_second_signal(site: RoughSite, plan: DrainPlan) -> float | None:
    """Seconds that a gateway with a long answer under way takes to end, if its status is 1."""
    await site.gateway.start()
    await site.all_used()
    body = question(CRITICAL, "A long story", max_tokens=100 * plan.tokens, stream=True)
    async with Conversation(site.port, "long", body) as talk:
        await talk.read()
        site.gateway.send(signal.SIGTERM)
        await asyncio.sleep(5 * _POLL_S)
        clock = asyncio.get_running_loop().time
        began_at = clock()
        site.gateway.send(signal.SIGTERM)
        status = await site.gateway.ended()
        return clock() - began_at if status == 1 else None


async def _all_inside(site: RoughSite, asked: list[asyncio.Task[str]]) -> None:
    """Wait until the gateway has every request: a balancer would send it no more from here."""
    async with asyncio.timeout(120):
        while True:
            ended = sum(task.done() for task in asked)  # first: who ends meanwhile counts once
            if ended + (await site.state())["tracked_requests"] >= len(asked):
                return
            await asyncio.sleep(_POLL_S)
