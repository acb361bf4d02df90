"""More work than places: who is served, who is refused and how soon, also when servers die.

The pool is the worked example of the docs: servers with ten places each, so that a request in
flight is one unit. Half of the load is Critical, half is not; arrivals are evenly spaced.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean

from benchmarks.live.conversation import Conversation, ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.site import BASE_MODEL, Site

PLACES = 10
_CRITICAL, _SHEDDABLE = "critical", "sheddable"
_WATCH_S = 0.25
_CALIBRATED_AT = 0.8
_CALIBRATION_S = 8.0
_SETTLED_S = 3.0
"""After a loss, until the queue has found its new length."""


def scarce_pool(backends: Sequence[str], *, ttft: str) -> dict[str, object]:
    """Two services with the same objective, one of them Critical; servers with ten places."""
    services = [
        {
            "name": name,
            "targets": [{"name": BASE_MODEL}],
            "objective": {"ttft": ttft, "tpot": "1s"},
            "priority": priority,
        }
        for name, priority in ((_CRITICAL, "Critical"), (_SHEDDABLE, "Non-Critical"))
    ]
    pool = {"name": "scarce", "servers": list(backends), "services": services}
    return {"max_requests_per_backend": PLACES, "backends": [], "pools": [pool]}


class Ending(StrEnum):
    """What became of a request."""

    SERVED = "served"
    REFUSED = "refused"
    BROKEN = "broken after its first byte"
    FAILED = "failed before its first byte"


@dataclass(slots=True)
class Visit:
    """One request: times in seconds since the start."""

    critical: bool
    arrived_at: float
    first_byte_at: float = 0.0
    ended_at: float = 0.0
    ending: Ending = Ending.FAILED
    status: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScarcityPlan:
    """A load (1.0 fills every place), for how long, and what happens in the middle.

    Attributes:
        killed: servers that die after a third of the time, the last ones.
        tokens: of each answer.
    """

    load: float
    lasts_s: float
    killed: int = 0
    tokens: int = 40


class _Load:
    """Evenly spaced arrivals, Critical and not in turn."""

    def __init__(self, site: Site, plan: ScarcityPlan) -> None:
        self._site = site
        self._plan = plan
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._began_at = 0.0
        self.visits: list[Visit] = []
        self.killed_at = 0.0
        self.in_use: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Find out how long an answer takes; then send the load, and kill servers in its midst."""
        places = PLACES * len(self._site.server_urls)
        began_at = self._clock()
        text = question(_CRITICAL, "Why?", max_tokens=self._plan.tokens, stream=True)
        await ask(self._site.port, "warm", text)
        service_s = self._clock() - began_at
        for _ in range(2):
            await self._send(service_s / (_CALIBRATED_AT * places), _CALIBRATION_S)
            served = self.visits[len(self.visits) // 2 :]
            service_s = sum(v.ended_at - v.arrived_at for v in served) / len(served)
            self.visits.clear()
        self.killed_at = self._plan.lasts_s / 3 if self._plan.killed else 0.0
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill())
            gap_s = service_s / (self._plan.load * places)
            watching = group.create_task(self._watch())
            await self._send(gap_s, self._plan.lasts_s)
            watching.cancel()

    async def _watch(self) -> None:
        """Count the places in use until cancelled."""
        while True:
            backends = (await self._site.state())["backends"]
            places = sum(backend["requests"] for backend in backends)
            self.in_use.append((self._clock() - self._began_at, places))
            await asyncio.sleep(_WATCH_S)

    async def _send(self, gap_s: float, lasts_s: float) -> None:
        self._began_at = self._clock()
        async with asyncio.TaskGroup() as group:
            for number in range(int(lasts_s / gap_s)):
                await asyncio.sleep(self._began_at + number * gap_s - self._clock())
                group.create_task(self._visit(number))

    async def _kill(self) -> None:
        if self._plan.killed:
            await asyncio.sleep(self.killed_at)
            for recorder in self._site.recorders[-self._plan.killed :]:
                await recorder.stop()  # what the gateway sees of a server that is killed

    async def _visit(self, number: int) -> None:
        visit = Visit(number % 2 == 0, self._clock() - self._began_at)
        self.visits.append(visit)
        body = self._body(_CRITICAL if visit.critical else _SHEDDABLE, number)
        async with Conversation(self._site.port, f"visit-{number}", body) as conversation:
            await conversation.read()
            visit.first_byte_at = self._clock() - self._began_at
            await conversation.read_all()
        visit.ended_at = self._clock() - self._began_at
        visit.status = conversation.status
        visit.ending = _ending(conversation)

    def _body(self, service: str, number: int) -> dict[str, object]:
        text = f"Question {number}: why is the sky blue?"
        return question(service, text, max_tokens=self._plan.tokens, stream=True)


def _ending(conversation: Conversation) -> Ending:
    if conversation.status in (429, 503):
        return Ending.REFUSED
    if conversation.status != 200:
        return Ending.FAILED
    whole = conversation.complete and b'"error"' not in conversation.body
    return Ending.SERVED if whole else Ending.BROKEN


async def check_server_loss(site: Site, plan: ScarcityPlan, plot: Path | None) -> list[Finding]:
    """Some servers die under load: the surplus is refused, and all of it is Non-Critical."""
    load = _Load(site, plan)
    await load.run()
    visits = load.visits
    before = [v for v in visits if v.arrived_at < load.killed_at - _SETTLED_S]
    settled = [
        v for v in visits if load.killed_at + _SETTLED_S <= v.arrived_at < plan.lasts_s - _SETTLED_S
    ]
    left = PLACES * (len(site.server_urls) - plan.killed)
    used = fmean(
        places
        for at, places in load.in_use
        if load.killed_at + _SETTLED_S <= at < plan.lasts_s - _SETTLED_S
    )
    critical = [v for v in visits if v.critical]
    if plot is not None:
        _draw(visits, load.killed_at, plot)
    return [
        equal("refused before the loss", _count(before, Ending.REFUSED), 0),
        equal("refused and Critical", _count(critical, Ending.REFUSED), 0),
        equal("Critical that failed without a byte", _count(critical, Ending.FAILED), 0),
        equal("failed without a byte", _count(visits, Ending.FAILED), 0),
        Finding(
            "refused, all Non-Critical",
            f"{_count(visits, Ending.REFUSED)} of {len(visits)}",
            "some",
            _count(visits, Ending.REFUSED) > 0,
        ),
        Finding(
            "streams that were on the servers that died",
            str(_count(visits, Ending.BROKEN)),
            f"up to {PLACES * plan.killed}",
            _count(visits, Ending.BROKEN) <= PLACES * plan.killed,
        ),
        Finding(
            "places in use after the loss",
            f"{used:.1f}",
            f"{left} within 3 %",
            abs(used - left) <= 0.03 * left,
        ),
        Finding("served after the loss", f"{_share(settled, Ending.SERVED):.3f}", "", ok=True),
    ]


async def check_refusals(site: Site, plan: ScarcityPlan) -> list[Finding]:
    """Under overload whoever is refused hears it at once."""
    load = _Load(site, plan)
    await load.run()
    visits = [v for v in load.visits if v.arrived_at >= _SETTLED_S]
    refused = [v for v in visits if v.ending is Ending.REFUSED and v.status == 429]
    times_s = sorted(v.ended_at - v.arrived_at for v in refused)
    p95_s = times_s[int(0.95 * len(times_s))] if times_s else float("inf")
    median_s = times_s[len(times_s) // 2] if times_s else float("inf")
    return [
        Finding("answered with 429", f"{len(refused)} of {len(visits)}", "some", bool(refused)),
        equal("refused and Critical", sum(v.critical for v in refused), 0),
        Finding("time to a 429, median", f"{median_s * 1e3:.1f} ms", "", ok=True),
        Finding("time to a 429, p95", f"{p95_s * 1e3:.1f} ms", "below 50 ms", p95_s < 0.05),
        Finding(
            "share served",
            f"{_share(visits, Ending.SERVED):.3f}",
            f"about {1 / plan.load:.3f}",
            ok=True,
        ),
    ]


def _count(visits: list[Visit], ending: Ending) -> int:
    return sum(v.ending is ending for v in visits)


def _share(visits: list[Visit], ending: Ending) -> float:
    return _count(visits, ending) / len(visits) if visits else 0.0


def _draw(visits: list[Visit], killed_at: float, path: Path) -> None:
    """Requests per second of arrival by what became of them; needs matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it

    last = int(max(v.arrived_at for v in visits))
    kinds = (
        ("Critical, served", True, Ending.SERVED),
        ("Non-Critical, served", False, Ending.SERVED),
        ("Non-Critical, refused", False, Ending.REFUSED),
        ("Critical, refused", True, Ending.REFUSED),
    )
    rows = [
        [
            sum(
                v.critical == critical and v.ending is ending and int(v.arrived_at) == second
                for v in visits
            )
            for second in range(last)
        ]
        for _, critical, ending in kinds
    ]
    broken = [
        sum(v.ending in (Ending.BROKEN, Ending.FAILED) and int(v.arrived_at) == s for v in visits)
        for s in range(last)
    ]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    labels = [*(name for name, _, _ in kinds), "stream was on a server that died"]
    axes.stackplot(range(last), *rows, broken, labels=labels)
    axes.axvline(killed_at, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("arrival, s")
    axes.set_ylabel("requests/s")
    axes.legend(loc="lower left", fontsize=7)
    figure.savefig(path, dpi=80)
