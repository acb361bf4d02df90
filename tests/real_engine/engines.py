"""The vLLM servers as they describe themselves, seen past the gateway."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import pytest

BASE = "base"
ADAPTERS = ("a", "b", "c", "d")
CONTEXT_TOKENS = 2048

_IN_FLIGHT = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", re.MULTILINE)
_GENERATED = re.compile(r"^vllm:generation_tokens_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Counters of all servers together."""

    urls: tuple[str, ...]
    http: aiohttp.ClientSession

    async def in_flight(self) -> int:
        """Requests that run or wait in any server."""
        return await self._total(_IN_FLIGHT)

    async def generated_tokens(self) -> int:
        """Tokens that all servers have generated since they started."""
        return await self._total(_GENERATED)

    async def become_busy(self, requests: int, *, within_s: float) -> None:
        """Return as soon as that many requests are in flight."""
        await self._reach(lambda in_flight: in_flight >= requests, within_s=within_s)

    async def become_idle(self, *, within_s: float) -> None:
        """Return as soon as nothing runs or waits."""
        await self._reach(lambda in_flight: in_flight == 0, within_s=within_s)

    async def _reach(self, wanted: Callable[[int], bool], *, within_s: float) -> None:
        in_flight = None
        try:
            async with asyncio.timeout(within_s):
                while not wanted(in_flight := await self.in_flight()):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pytest.fail(f"after {within_s} s the servers still have {in_flight} in flight")

    async def _total(self, pattern: re.Pattern[str]) -> int:
        total = 0.0
        for url in self.urls:
            async with self.http.get(f"{url}/metrics") as response:
                values = pattern.findall(await response.text())
            assert values, f"{url}/metrics has no line like {pattern.pattern}"
            total += sum(map(float, values))
        return round(total)
