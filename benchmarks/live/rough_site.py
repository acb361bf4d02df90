"""A gateway and simulated servers as processes, with nothing between them that could soften faults.

Unlike site.py there is no witness; one more server, which nobody disturbs, says what is right.
"""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.live.processes import SERVING, SIMULATING, raise_descriptor_limit
from benchmarks.live.programs import Program

BASE_MODEL = "base"
_POLL_S = 0.05
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)


class RoughSite:
    """What a check of faults works with.

    Attributes:
        servers: those of the pool; `urls` are theirs. `reference` is not in the pool.
    """

    def __init__(
        self, *, folder: Path, settings: dict[str, object], http: aiohttp.ClientSession
    ) -> None:
        """Keep logs and configuration in `folder`; nothing runs yet."""
        self.http = http
        self.servers: list[Program] = []
        self.urls: list[str] = []
        self.reference = ""
        self.gateway: Program
        self._folder = folder
        self._settings = settings
        self._config = folder / "gateway.yaml"

    @property
    def port(self) -> int:
        """The gateway's, for clients."""
        return int(self.gateway.announced[1])

    async def start(self, *, servers: int, time_scale: float, stack: AsyncExitStack) -> None:
        """Start everything; `stack` stops it."""
        for number in range(servers + 1):
            program = Program(
                [
                    *("simulate-server", "--seed", str(number), "--model", BASE_MODEL),
                    *("--time-scale", str(time_scale)),
                ],
                SIMULATING,
                self._folder / f"server-{number}.log",
            )
            stack.push_async_callback(program.stop)
            self.servers.append(program)
        found = await asyncio.gather(*(program.start("--port", "0") for program in self.servers))
        self.urls = [match[1] for match in found]
        for program, url in zip(self.servers, self.urls, strict=True):
            program.keep_port(url)
        self.servers.pop()
        self.reference = self.urls.pop()
        self.write_config()
        self.gateway = Program(
            ["serve", "--config", str(self._config)], SERVING, self._folder / "gateway.log"
        )
        stack.push_async_callback(self.gateway.stop)
        await self.gateway.start()
        await self.all_used()

    def write_config(self, *, without: int | None = None, **changed: object) -> None:
        """Write the gateway's configuration, with a server fewer or other settings."""
        backends = [url for number, url in enumerate(self.urls) if number != without]
        fixed = {"host": "127.0.0.1", "port": 0, "admin_port": 0, "seed": 1}
        log = str(self._folder / "requests.jsonl")
        config = {**fixed, "request_log": log, "backends": backends, **self._settings, **changed}
        self._config.write_bytes(orjson.dumps(config))  # JSON is YAML

    async def switch(self, number: int, path: str, body: dict[str, object] | None = None) -> None:
        """Use a switch of a simulated server; one that is gone needs none."""
        try:
            async with self.http.post(f"{self.urls[number]}/sim/{path}", json=body or {}) as answer:
                answer.raise_for_status()
        except aiohttp.ClientConnectionError:
            return

    async def state(self) -> dict[str, Any]:
        """The scheduler's state."""
        async with self.http.get(f"{self.gateway.announced[2]}/debug/state") as response:
            (pool,) = (await response.json())["pools"].values()
        return dict(pool)

    async def used(self) -> set[str]:
        """Servers that get requests."""
        state = await self.state()
        return {
            str(b["backend_id"])
            for b in state["backends"]
            if b["usable"] and not b["draining"] and not b["ejected"]
        }

    async def until_used(self, number: int, *, wanted: bool, within_s: float) -> float | None:
        """Seconds until a server is used, or is not; None if it is not so in time."""
        clock = asyncio.get_running_loop().time
        began_at = clock()
        while clock() - began_at < within_s:
            if (self.urls[number] in await self.used()) is wanted:
                return clock() - began_at
            await asyncio.sleep(_POLL_S)
        return None

    async def all_used(self, *, within_s: float = 60.0) -> None:
        """Return when every server is used; TimeoutError."""
        async with asyncio.timeout(within_s):
            while await self.used() != set(self.urls):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(_POLL_S)

    async def metric(self, name: str, **labels: str) -> float:
        """Sum over the samples of a metric that have these labels."""
        async with self.http.get(f"{self.gateway.announced[2]}/metrics") as response:
            page = await response.text()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(value)
            for found, its_labels, value in _SAMPLE.findall(page)
            if found == name and all(label in its_labels for label in wanted)
        )

    async def reload(self) -> None:
        """Let the gateway read its configuration again."""
        self.gateway.send(signal.SIGHUP)
        await asyncio.sleep(_POLL_S)

    def resident_bytes(self) -> int:
        """Memory of the gateway's process."""
        status = Path(f"/proc/{self.gateway.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        """Open files and sockets of the gateway's process."""
        return sum(1 for _ in Path(f"/proc/{self.gateway.pid}/fd").iterdir())


@asynccontextmanager
async def rough_site(
    *, servers: int, time_scale: float, settings: dict[str, object], folder: Path
) -> AsyncIterator[RoughSite]:
    """Start servers and gateway; stop them at the end, by process id."""
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        site = RoughSite(folder=folder, settings=settings, http=http)
        await site.start(servers=servers, time_scale=time_scale, stack=stack)
        yield site


def text_of(body: bytes) -> str:
    """The text of a chat answer, streamed or not; of a broken stream what there is of it."""
    if not body.startswith(b"data: "):
        return str(json.loads(body)["choices"][0]["message"]["content"])
    pieces = []
    for event in body.split(b"\n\n"):
        data = event.strip().removeprefix(b"data: ")
        if data.startswith(b"{") and data.endswith(b"}"):
            choices = json.loads(data).get("choices") or [{}]
            pieces.append(choices[0].get("delta", {}).get("content") or "")
    return "".join(pieces)
