"""The whole gateway, as it is shipped, in front of simulated servers; all on one loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from types import MappingProxyType

import aiohttp

from benchmarks.live.recorder import Recorder
from benchmarks.live.site import BASE_MODEL, Site
from gateway.assembly import build_gateway
from gateway.settings.schema import Settings
from gateway.simulator.engine import EngineOptions
from gateway.simulator.http_server import ServerClocks, SimulatedServer, SimulatedServerOptions

_LONGEST_S = 30.0


@asynccontextmanager
async def site_in_process(
    *,
    servers: int = 3,
    adapters: tuple[str, ...] = (),
    time_scale: float = 5.0,
    journal: Path | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    longest_s: float = _LONGEST_S,
) -> AsyncIterator[Site]:
    """Start everything; `settings` are top-level keys of the gateway's configuration.

    Raises:
        TimeoutError: what is done with it takes far too long.
    """
    options = SimulatedServerOptions(
        model=BASE_MODEL,
        adapters=adapters,
        engine=EngineOptions(max_loras=4),
        time_scale=time_scale,
        shutdown_s=0.1,
    )
    async with AsyncExitStack() as stack, asyncio.timeout(longest_s):
        urls = []
        for number in range(servers):
            server = SimulatedServer(
                options=options,
                clocks=ServerClocks(time.monotonic, time.time),
                rng=Random(number),
            )
            stack.push_async_callback(server.stop)
            urls.append(await server.start())
        recorders = tuple(Recorder(url, unbounded=frozenset({BASE_MODEL})) for url in urls)
        backends = []
        for recorder in recorders:
            stack.push_async_callback(recorder.stop)
            backends.append(await recorder.start())
        values = {"host": "127.0.0.1", "port": 0, "admin_port": 0, "seed": 1, "request_log": None}
        values |= {"backends": tuple(backends), "journal": journal, **settings}
        port, admin_port = await stack.enter_async_context(
            running_gateway(Settings.model_validate(values))
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        site = Site(
            port=port,
            admin_url=f"http://127.0.0.1:{admin_port}",
            server_urls=tuple(urls),
            recorders=recorders,
            gateway_pid=None,
            http=http,
        )
        await site.usable()
        yield site


@asynccontextmanager
async def running_gateway(settings: Settings) -> AsyncIterator[tuple[int, int]]:
    stop = asyncio.Event()
    ports: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    with ExitStack() as files:
        gateway = build_gateway(settings, files).gateway
        running = asyncio.create_task(
            gateway.run(
                stop=stop, drain_s=lambda: 1.0, started=lambda *both: ports.set_result(both)
            )
        )
        try:
            yield await ports
        finally:
            stop.set()
            await running
