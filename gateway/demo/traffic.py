"""The demo's clients: they ask at random times, whatever becomes of what they asked before."""

import asyncio
from collections.abc import Sequence
from math import exp
from random import Random

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from gateway.demo.workloads import Workload

_SPREAD = 0.6
"""Standard deviation of the logarithm of lengths."""
_SHARE_THAT_LEAVES = 0.03
_MOST_AT_ONCE = 1000
_WORDS = ("the", "of", "server", "model", "token", "batch", "a", "slow", "fast", "request")


class Traffic:
    """Sends requests of several services to a gateway, at a rate. Run it in a TaskGroup.

    One client in thirty leaves before its answer is complete. While 1,000 requests are unanswered,
    nothing is asked.
    """

    def __init__(self, workloads: Sequence[Workload], *, rate: float, rng: Random) -> None:
        """`rate` is the mean number of requests per second (Poisson arrivals)."""
        self._workloads = workloads
        self._shares = [workload.share for workload in workloads]
        self._rate = rate
        self._rng = rng
        self._unanswered = 0

    async def run(self, url: str) -> None:
        """Ask the gateway at `url` until cancelled."""
        session = ClientSession(
            url, connector=TCPConnector(limit=0, ssl=False), timeout=ClientTimeout(total=None)
        )
        async with session, asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._rng.expovariate(self._rate))
                if self._unanswered < _MOST_AT_ONCE:
                    workload = self._rng.choices(self._workloads, self._shares)[0]
                    group.create_task(self._ask(session, workload))

    async def _ask(self, session: ClientSession, workload: Workload) -> None:
        name = workload.service.name
        body = {
            "model": name,
            "messages": [
                {"role": "system", "content": _text(Random(name), workload.system_words)},
                {"role": "user", "content": _text(self._rng, self._length(workload.prompt_words))},
            ],
            "max_tokens": self._length(workload.answer_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        chunks_left = self._rng.randint(1, 20) if self._rng.random() < _SHARE_THAT_LEAVES else -1
        self._unanswered += 1
        try:
            async with session.post("/v1/chat/completions", json=body) as response:
                async for _ in response.content.iter_any():
                    chunks_left -= 1
                    if not chunks_left:
                        response.close()
                        return
        except ClientError:
            pass  # the gateway counts what it refused or cut, and its page shows it
        finally:
            self._unanswered -= 1

    def _length(self, median: int) -> int:
        return max(1, round(median * exp(self._rng.gauss(0.0, _SPREAD))))


def _text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words))
