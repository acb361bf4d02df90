"""A steady load of many clients, each asking again as soon as it has its answer."""

import asyncio
from collections import Counter
from random import Random

from benchmarks.live.conversation import ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.site import Site

DONE = b"data: [DONE]\n\n"
_SHOWN = 120


class SteadyLoad:
    """Clients that ask until told to stop; every answer is checked.

    Attributes:
        answered: answers so far, right or wrong.
        failures: by what was wrong.
    """

    def __init__(self, site: Site, *, model: str, clients: int, tokens: int, seed: int = 1) -> None:
        """Nothing is asked before `run`."""
        self._site = site
        self._model = model
        self._clients = clients
        self._tokens = tokens
        self._rng = Random(seed)
        self._stop = asyncio.Event()
        self.answered = 0
        self.failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Ask until stopped, and have every answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._client(number))

    def stop(self) -> None:
        """Ask nothing more."""
        self._stop.set()

    async def reached(self, answers: int) -> None:
        """Wait until so many answers have come."""
        while self.answered < answers:  # noqa: ASYNC110 - looked at, not told
            await asyncio.sleep(0.02)

    def findings(self) -> list[Finding]:
        """Rows of what came of it."""
        rows = [Finding("requests", str(self.answered), "", ok=True)]
        rows.append(equal("requests that failed or were changed", self.failures.total(), 0))
        rows += [
            Finding(f"  {what}", str(count), "0", ok=False)
            for what, count in self.failures.most_common(5)
        ]
        return rows

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            await self._ask(f"client-{number}-{turn}", stream=self._rng.random() < 0.7)

    async def _ask(self, request_id: str, *, stream: bool) -> None:
        tokens = self._rng.randint(1, 2 * self._tokens)
        body = question(self._model, "Go on.", max_tokens=tokens, stream=stream)
        try:
            answer = await ask(self._site.port, request_id, body)
        except OSError as error:
            self.failures[type(error).__name__] += 1
            self.answered += 1
            return
        self.answered += 1
        exchanges = self._site.exchanges(request_id)
        if answer.status != 200:
            self.failures[f"{answer.status} {answer.body[:_SHOWN].decode()}"] += 1
        elif not answer.complete or (stream and not answer.body.endswith(DONE)):
            self.failures["cut off"] += 1
        elif len(exchanges) != 1 or exchanges[0].body != answer.body:
            self.failures["not the bytes of one server"] += 1
