"""Simulated servers and the gateway as processes of their own, on free ports of loopback."""

import asyncio
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from benchmarks.live.findings import Finding
from benchmarks.live.recorder import Recorder
from benchmarks.live.site import BASE_MODEL, Site

PROGRAM = Path(sys.executable).with_name("llm-gateway")
_START_S = 60.0
_STOP_S = 20.0
_POLL_S = 0.02
SERVING = re.compile(r"clients: http://[^:]+:(\d+)/v1  administration: (http://\S+)")
SIMULATING = re.compile(r"at (http://\S+) serves")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """What to start.

    Attributes:
        servers: how many simulated servers.
        adapters: LoRA adapters of each.
        slots: adapters in one batch of each.
        time_scale: engine seconds per second.
        settings: top-level keys of the gateway's configuration file.
        arrange: makes further keys from the servers' URLs.
        folder: for the configuration file, the journal and what the processes print.
    """

    servers: int
    adapters: tuple[str, ...] = ()
    slots: int = 4
    time_scale: float
    settings: dict[str, object]
    folder: Path
    arrange: Callable[[Sequence[str]], dict[str, object]] | None = None

    @property
    def config(self) -> Path:
        """The gateway's configuration file."""
        return self.folder / "gateway.yaml"

    @property
    def journal(self) -> Path:
        """Where the gateway writes its journal."""
        return self.folder / "journal.jsonl"


@asynccontextmanager
async def site_of_processes(options: SiteOptions) -> AsyncIterator[Site]:
    """Start everything; at the end stop it, by process id."""
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        lines = await asyncio.gather(
            *(
                stack.enter_async_context(
                    _process(_server_flags(options, n), SIMULATING, options.folder / f"{n}.log")
                )
                for n in range(options.servers)
            )
        )
        urls = tuple(found[1] for found, _ in lines)
        recorders = tuple(Recorder(url, unbounded=frozenset({BASE_MODEL})) for url in urls)
        for recorder in recorders:
            stack.push_async_callback(recorder.stop)
        backends = [await recorder.start() for recorder in recorders]
        options.config.write_bytes(orjson.dumps(_settings(options, backends)))  # JSON is YAML
        serving, pid = await stack.enter_async_context(
            _process(
                ["serve", "--config", str(options.config)], SERVING, options.folder / "gateway.log"
            )
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        site = Site(
            port=int(serving[1]),
            admin_url=serving[2],
            server_urls=urls,
            recorders=recorders,
            gateway_pid=pid,
            http=http,
        )
        await site.usable()
        yield site


async def replayed(journal: Path) -> Finding:
    """Check with `llm-gateway replay` that a journal's decisions are reproduced."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "replay", journal, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    summary = said.decode().strip().rpartition("\n")[2]
    ok = process.returncode == 0
    return Finding("journal replayed", summary, "every decision was reproduced", ok)


def _server_flags(options: SiteOptions, number: int) -> list[str]:
    values = {
        "--port": 0,
        "--seed": number,
        "--model": BASE_MODEL,
        "--time-scale": options.time_scale,
        "--max-loras": options.slots,
        "--adapters": ",".join(options.adapters),
    }
    return ["simulate-server", *(str(part) for pair in values.items() for part in pair)]


def _settings(options: SiteOptions, backends: Sequence[str]) -> dict[str, object]:
    return {
        "host": "127.0.0.1",
        "port": 0,
        "admin_port": 0,
        "seed": 1,
        "journal": str(options.journal),
        "backends": backends,
        **options.settings,
        **(options.arrange(backends) if options.arrange else {}),
    }


@asynccontextmanager
async def _process(
    arguments: list[str], announcement: re.Pattern[str], log: Path
) -> AsyncIterator[tuple[re.Match[str], int]]:
    """Run the program, its output in `log`; yield what it announced, and its process id.

    Raises:
        RuntimeError: it ended instead of announcing anything.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *arguments, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(_START_S):
            while not (found := _search(announcement, log)):
                if process.returncode is not None:
                    raise RuntimeError(f"ended: {PROGRAM.name} {' '.join(arguments)}; see {log}")
                await asyncio.sleep(_POLL_S)
        yield found, process.pid
    finally:
        await _stopped(process)


def _search(announcement: re.Pattern[str], log: Path) -> re.Match[str] | None:
    return announcement.search(log.read_text(encoding="utf-8"))


async def _stopped(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
