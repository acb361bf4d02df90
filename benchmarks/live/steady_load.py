"""Poisson arrivals of two services, Critical and Non-Critical, and what became of each request."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import orjson

from benchmarks.live.conversation import Conversation, ask, question
from benchmarks.live.rough_site import BASE_MODEL, RoughSite, text_of

CRITICAL, NON_CRITICAL = "interactive", "batch"
_MADE_UP_S = 1.0
"""Of arrivals, where the machine had no time for them."""
_DONE = b"data: [DONE]\n\n"
_ERROR = b'data: {"error":'

OK = "ok"
LEFT = "left by their clients"
WRONG = "wrong text"
BROKEN = "broken with an error event"
CUT = "cut without a word"
HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What is asked: so many requests a second, this share of them Critical, over some prompts.

    Attributes:
        cancelled: share of the clients that leave in the middle.
        patience_s: after which a request counts as hung.
    """

    rate: float
    critical: float = 0.5
    streamed: float = 0.8
    cancelled: float = 0.0
    prompts: int = 40
    tokens: tuple[int, int] = (20, 180)
    patience_s: float = 60.0
    seed: int = 1


@dataclass(slots=True)
class Tally:
    """What became of requests, by service."""

    results: dict[str, Counter[str]] = field(
        default_factory=lambda: {CRITICAL: Counter(), NON_CRITICAL: Counter()}
    )

    def count(self, service: str, result: str) -> None:
        """One request has ended."""
        self.results[service][result] += 1

    @property
    def ended(self) -> int:
        """Requests of both services that have ended."""
        return sum(each.total() for each in self.results.values())

    def offered(self, service: str) -> int:
        """Requests that have ended."""
        return self.results[service].total()


def services() -> list[dict[str, object]]:
    """The services of the gateway's configuration that the load asks for."""
    return [
        {"name": name, "targets": [{"name": BASE_MODEL}], "priority": priority}
        for name, priority in ((CRITICAL, "Critical"), (NON_CRITICAL, "Non-Critical"))
    ]


class SteadyLoad:
    """Asks until told to stop, and compares each answer with that of the undisturbed server.

    Attributes:
        rate: arrivals a second from now on; at first the plan's.
    """

    def __init__(self, site: RoughSite, plan: LoadPlan) -> None:
        """Nothing is asked yet."""
        self._site = site
        self._plan = plan
        self.rate = plan.rate
        self._rng = Random(plan.seed)
        self._texts: dict[int, tuple[int, str]] = {}
        self._numbers = 0
        self.tally = Tally()
        self.failed: list[str] = []

    async def learn_answers(self) -> None:
        """Ask the undisturbed server for the right answer to every prompt."""
        port = int(self._site.reference.rpartition(":")[2])
        for number in range(self._plan.prompts):
            tokens = self._rng.randint(*self._plan.tokens)
            body = question(BASE_MODEL, _prompt(number), max_tokens=tokens, stream=False)
            answer = await ask(port, f"right-{number}", body)
            self._texts[number] = (tokens, text_of(answer.body))

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop` is set, then wait for the answers."""
        clock = asyncio.get_running_loop().time
        arrives_at = clock()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(self._one())
                # From one arrival to the next: each sleep is longer than was asked for.
                arrives_at = max(arrives_at, clock() - _MADE_UP_S)
                arrives_at += self._rng.expovariate(self.rate)
                await asyncio.sleep(arrives_at - clock())

    async def _one(self) -> None:
        self._numbers += 1
        rng, plan = self._rng, self._plan
        service = CRITICAL if rng.random() < plan.critical else NON_CRITICAL
        number = rng.randrange(plan.prompts)
        tokens, right = self._texts[number]
        stream = rng.random() < plan.streamed
        leaves = rng.random() < plan.cancelled
        delay_s = rng.uniform(0.0, 1.0)
        body = question(service, _prompt(number), max_tokens=tokens, stream=stream)
        talk = Conversation(self._site.port, f"load-{self._numbers}", body)
        try:
            async with asyncio.timeout(plan.patience_s), talk:
                if leaves:
                    await self._leave(talk, delay_s)
                else:
                    await talk.read_all()
            result = LEFT if leaves and not talk.complete else _judge(talk, right, stream=stream)
        except TimeoutError:
            result = HUNG
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a result to be told
            result = repr(error)
        self.tally.count(service, result)
        if result not in (OK, LEFT):
            self.failed.append(f"{talk.request_id} {service} {result}: {talk.body[-200:]!r}")

    async def _leave(self, talk: Conversation, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await talk.read_all()
        except TimeoutError:
            talk.leave(rudely=self._rng.random() < 0.5)


def _prompt(number: int) -> str:
    return f"Tell story {number}. " + "Once upon a time. " * (number % 20)


def _judge(talk: Conversation, right: str, *, stream: bool) -> str:
    if not talk.complete:
        return CUT
    if talk.status != 200:
        error = orjson.loads(talk.body)["error"]
        return f"{talk.status} {error['type']}"
    if stream and _ERROR in talk.body:
        return BROKEN
    if stream and not talk.body.endswith(_DONE):
        return CUT
    return OK if text_of(talk.body) == right else WRONG
