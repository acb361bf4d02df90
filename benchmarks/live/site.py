"""A gateway in front of simulated servers, as the checks see it."""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.live.recorder import Exchange, Recorder

BASE_MODEL = "base"
_POLL_S = 0.01
_COUNTERS = (
    "requests",
    "sequences",
    "decoding",
    "context_tokens",
    "pending_prefill_tokens",
    "kv_reserved_tokens",
    "active_adapters",
)
_IN_ENGINE = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where everything is.

    Attributes:
        port: the gateway's, for clients.
        admin_url: the gateway's, for administrators.
        server_urls: of the simulated servers, past the recorders.
        recorders: between the gateway and each server.
        gateway_pid: None if the gateway runs in this process.
        http: for looking inside.
    """

    port: int
    admin_url: str
    server_urls: tuple[str, ...]
    recorders: tuple[Recorder, ...]
    gateway_pid: int | None
    http: aiohttp.ClientSession

    def exchanges(self, request_id: str) -> list[Exchange]:
        """What reached servers of a request."""
        return [e for recorder in self.recorders for e in recorder.exchanges.get(request_id, ())]

    async def reached(self, request_id: str) -> None:
        """Wait until a request has reached a server."""
        if self.exchanges(request_id):
            return
        arrived = asyncio.Event()
        for recorder in self.recorders:
            recorder.awaited[request_id] = arrived
        try:
            await arrived.wait()
        finally:
            for recorder in self.recorders:
                del recorder.awaited[request_id]

    async def state(self) -> dict[str, Any]:
        """The scheduler's state."""
        async with self.http.get(f"{self.admin_url}/debug/state") as response:
            (pool,) = (await response.json())["pools"].values()
        return dict(pool)

    async def left_over(self) -> dict[str, object]:
        """Counters of the scheduler that are not zero."""
        state = await self.state()
        counters = {
            name: state[name] for name in ("tracked_requests", "queued_requests", "queued_bytes")
        }
        for number, backend in enumerate(state["backends"]):
            counters |= {f"server {number}: {name}": backend[name] for name in _COUNTERS}
        return {name: value for name, value in counters.items() if value}

    async def in_engines(self) -> int:
        """Requests that run or wait in any server, by their metrics."""
        total = 0.0
        for url in self.server_urls:
            async with self.http.get(f"{url}/metrics") as response:
                total += sum(map(float, _IN_ENGINE.findall(await response.text())))
        return round(total)

    async def sim_state(self, number: int) -> dict[str, Any]:
        """What a simulated server tells of itself."""
        async with self.http.get(f"{self.server_urls[number]}/sim/state") as response:
            return dict(await response.json())

    async def usable(self, *, within_s: float = 30.0) -> None:
        """Return when the gateway may send to every server; TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                backends = (await self.state())["backends"]
                if sum(b["usable"] for b in backends) == len(self.server_urls):
                    return
                await asyncio.sleep(_POLL_S)

    async def emptied(self, clock: Callable[[], float], *, within_s: float) -> tuple[float, float]:
        """Wait until nothing is left in the scheduler and in the engines.

        Returns:
            Seconds that either took; `within_s` if it was not empty by then.
        """
        began_at = clock()
        took = {"ledger": within_s, "engines": within_s}

        async def measure(which: str, nothing_left: Callable[[], Any]) -> None:
            while (passed := clock() - began_at) < within_s:
                if not await nothing_left():
                    took[which] = passed
                    return
                await asyncio.sleep(_POLL_S)

        async with asyncio.TaskGroup() as group:
            group.create_task(measure("ledger", self.left_over))
            group.create_task(measure("engines", self.in_engines))
        return took["ledger"], took["engines"]

    def resident_bytes(self) -> int:
        """Memory of the gateway's process; 0 if that is this one."""
        if self.gateway_pid is None:
            return 0
        status = Path(f"/proc/{self.gateway_pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def cpu_s(self) -> float:
        """CPU time that the gateway's process has taken; 0 if that is this one."""
        if self.gateway_pid is None:
            return 0.0
        stat = Path(f"/proc/{self.gateway_pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """Open files and sockets of the gateway's process; 0 if that is this one."""
        if self.gateway_pid is None:
            return 0
        return sum(1 for _ in Path(f"/proc/{self.gateway_pid}/fd").iterdir())
