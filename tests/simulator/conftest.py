"""Simulated servers on loopback, on uvloop as they are shipped."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from random import Random

import pytest
import uvloop

from gateway.simulator.engine import EngineOptions
from gateway.simulator.http_server import ServerClocks, SimulatedServer, SimulatedServerOptions
from tests.simulator.http_client import LiveServer

StartServer = Callable[..., Awaitable[LiveServer]]

RECORDED = SimulatedServerOptions(
    adapters=("a", "b", "c", "d"),
    engine=EngineOptions(max_loras=2),
    max_model_len=2048,
    time_scale=20.0,
    shutdown_s=0.1,
)
"""Started like the server of the recordings, but fast."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Start servers that are stopped after the test."""
    servers: list[SimulatedServer] = []

    async def start(options: SimulatedServerOptions = RECORDED, seed: int = 1) -> LiveServer:
        server = SimulatedServer(
            options=options, clocks=ServerClocks(time.monotonic, time.time), rng=Random(seed)
        )
        servers.append(server)
        return LiveServer(server, await server.start())

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def server(start_server: StartServer) -> LiveServer:
    return await start_server()
