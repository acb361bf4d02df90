"""Reloads and draining under load: no request fails."""

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.live.conversation import Conversation, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.load import DONE, SteadyLoad
from benchmarks.live.site import BASE_MODEL, Site

_POLL_S = 0.01
_END_S = 15.0
_PLACES_AT_THE_END = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadsPlan:
    """How many requests during reloads, and how many streams are on when the gateway ends."""

    requests: int
    clients: int
    tokens: int
    draining_streams: int


class Generations:
    """Configurations that differ in services, objectives, limits, time bounds and servers."""

    def __init__(self, config: Path) -> None:
        """`config` is the file, written when the site starts."""
        self._config = config
        self._base: dict[str, object] = {}
        self._urls: tuple[str, ...] = ()

    def first(self, urls: Sequence[str]) -> dict[str, object]:
        """Keys of the first generation."""
        self._urls = tuple(urls)
        return self._keys(0)

    def write(self, generation: int, **further: object) -> None:
        """Replace the file, with `further` keys."""
        self._base = self._base or orjson.loads(self._config.read_bytes())
        self._replace(orjson.dumps({**self._base, **self._keys(generation), **further}))

    def write_faulty(self) -> None:
        """Replace the file by one that must be refused."""
        self._base = self._base or orjson.loads(self._config.read_bytes())
        self._replace(b"pools: [{name: pool, servers: [nowhere]}]")

    def _keys(self, generation: int) -> dict[str, object]:
        servers = list(self._urls)
        if generation % 3:
            del servers[generation % len(servers)]
        services = [
            {
                "name": "chat",
                "model": BASE_MODEL,
                "objective": {"ttft": f"{60 + generation % 7}s", "tpot": "5s"},
                "priority": generation % 3,
            },
            {"name": f"guest-{generation % 4}", "targets": [{"name": BASE_MODEL, "weight": 1}]},
        ]
        pool = {"name": "pool", "servers": servers, "services": services}
        return {
            "backends": [],
            "pools": [pool],
            "queue_timeout": f"{300 + generation % 5}s",
            "stall_timeout": f"{100 + generation % 11}s",
            "max_requests_per_backend": 24 + generation % 9,
        }

    def _replace(self, text: bytes) -> None:
        passing = self._config.with_suffix(".new")
        passing.write_bytes(text)
        passing.replace(self._config)


async def check_reloads(site: Site, generations: Generations, plan: ReloadsPlan) -> list[Finding]:
    """Reload again and again while requests run; then end the gateway under load."""
    assert site.gateway_pid is not None
    load = SteadyLoad(site, model=BASE_MODEL, clients=plan.clients, tokens=plan.tokens)
    good = faulty = 0
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(load.run())
        while load.answered < plan.requests:
            if (good + faulty) % 5 == 4:
                generations.write_faulty()
                faulty += 1
            else:
                generations.write(good + 1)
                good += 1
            os.kill(site.gateway_pid, signal.SIGHUP)
            await _counted(site, good + faulty)
        load.stop()
        await asking
    # Few places for the end, so that many of the last requests wait in the queue.
    good += 1
    generations.write(0, max_requests_per_backend=_PLACES_AT_THE_END)
    os.kill(site.gateway_pid, signal.SIGHUP)
    await _counted(site, good + faulty)
    counted = await _reloads(site)
    findings = [
        equal("reloads that were done", counted["ok"], good),
        equal("faulty configurations that were refused", counted["failed"], faulty),
        *load.findings(),
    ]
    return [*findings, *await _drained(site, plan)]


async def _drained(site: Site, plan: ReloadsPlan) -> list[Finding]:
    """End the gateway while streams run and others wait."""
    assert site.gateway_pid is not None
    conversations = [
        Conversation(
            site.port,
            f"drain-{number}",
            question(BASE_MODEL, "Go on.", max_tokens=plan.tokens * 10, stream=True),
        )
        for number in range(plan.draining_streams)
    ]
    ended_before = await _ended_requests(site)
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(_whole(each)) for each in conversations]
        state = await _all_arrived(site, ended_before + plan.draining_streams)
        os.kill(site.gateway_pid, signal.SIGTERM)
    whole = sum(answer.result() for answer in answers)
    return [
        Finding("queued when the gateway was told to end", str(state), "", ok=True),
        equal("streams that ended whole after that", whole, plan.draining_streams),
        equal("the gateway ended by itself", await _ended(site.gateway_pid), True),  # noqa: FBT003 - compared with
    ]


async def _ended(pid: int) -> bool:
    """Wait for the end of a process of ours."""
    try:
        async with asyncio.timeout(_END_S):
            while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - looked at, not told
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return False
    return True


async def _all_arrived(site: Site, requests: int) -> int:
    """Wait until the gateway has had so many requests; return how many wait in its queue."""
    while True:
        # In this order, one that ends meanwhile is in neither, and is counted the next time.
        ended = await _ended_requests(site)
        state = await site.state()
        if ended + state["tracked_requests"] >= requests:
            return int(state["queued_requests"])
        await asyncio.sleep(_POLL_S)


async def _ended_requests(site: Site) -> int:
    return sum((await _counts(site, "llm_gateway_requests_total")).values())


async def _whole(conversation: Conversation) -> bool:
    async with conversation:
        await conversation.read_all()
    return conversation.status == 200 and conversation.complete and conversation.body.endswith(DONE)


async def _counted(site: Site, reloads: int) -> None:
    """Wait until the gateway has noticed so many."""
    async with asyncio.timeout(30.0):
        while sum((await _reloads(site)).values()) < reloads:  # noqa: ASYNC110 - looked at, not told
            await asyncio.sleep(_POLL_S)


async def _reloads(site: Site) -> dict[str, int]:
    """Reloads by result."""
    counts = await _counts(site, "llm_gateway_reloads_total")
    return {labels.split('"')[1]: count for labels, count in counts.items()}


async def _counts(site: Site, name: str) -> dict[str, int]:
    """Samples of a counter by their labels."""
    async with site.http.get(f"{site.admin_url}/metrics") as response:
        page = await response.text()
    samples = (line.rpartition(" ") for line in page.splitlines() if line.startswith(name + "{"))
    return {labels: int(float(count)) for labels, _, count in samples}
