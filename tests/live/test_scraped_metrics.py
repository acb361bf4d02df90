"""What a scrape of the running gateway shows, once it has had every kind of traffic."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from itertools import chain
from pathlib import Path
from random import Random

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gateway.settings.schema import Settings
from gateway.simulator.fault_switches import Cut, CutKind
from gateway.simulator.http_server import ServerClocks, SimulatedServer, SimulatedServerOptions
from gateway.telemetry.metric_definitions import SECTIONS
from gateway.telemetry.metric_kinds import MetricDefinition, MetricKind
from tests.live.in_process_site import running_gateway

DEFINITIONS = tuple(chain.from_iterable(definitions for _, definitions in SECTIONS))
KEY = "a-key-of-the-test"
NOT_PROVOKED = {
    "llm_gateway_cached_prompt_tokens_total",  # the simulated servers do not tell them
    "llm_gateway_ignored_events_total",
    "llm_gateway_discovery_errors_total",
    "llm_gateway_lost_lines_total",
    "llm_gateway_backend_ejections_total",
    "llm_gateway_service_missed_total",
    "llm_gateway_reloads_total",
}
"""Counters that are there, at zero or above."""


def settings_for(folder: Path, urls: list[str]) -> Settings:
    servers = folder / "servers.json"
    servers.write_text(json.dumps({"servers": urls}))
    chat = {
        "name": "chat",
        "model": "base",
        "targets": [{"name": "base"}],
        "objective": {"ttft": "10s", "tpot": "1s"},
        "continue_broken_streams": True,
    }
    pools = [
        {"name": "main", "discovery": {"file": {"path": str(servers)}}, "services": [chat]},
        {
            "name": "away",
            "servers": ["http://127.0.0.1:1"],
            "services": [{"name": "away", "fallback": "chat"}],
        },
    ]
    return Settings.model_validate(
        {
            "host": "127.0.0.1",
            "port": 0,
            "admin_port": 0,
            "seed": 1,
            "request_log": str(folder / "requests.log"),
            "api_keys": [{"name": "tester", "sha256": [sha256(KEY.encode()).hexdigest()]}],
            "max_requests_per_backend": 1,
            "max_header_size": "4KiB",
            "pools": pools,
        }
    )


class Visitor:
    def __init__(self, http: aiohttp.ClientSession, ports: tuple[int, int]) -> None:
        self.http = http
        self.port = ports[0]
        self.admin_url = f"http://127.0.0.1:{ports[1]}"

    async def ask(self, model: str = "base") -> int:
        """The status of a streamed answer that was read to its end, or broke."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Hello " * 50}],
            "max_tokens": 30,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.http.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def page(self) -> str:
        async with self.http.get(f"{self.admin_url}/metrics") as response:
            return await response.text()

    async def until(self, sample: str) -> None:
        """Wait for a line of the page."""
        async with asyncio.timeout(10):
            while sample not in await self.page():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def visiting(folder: Path) -> AsyncIterator[tuple[Visitor, list[SimulatedServer]]]:
    options = SimulatedServerOptions(model="base", time_scale=20.0, shutdown_s=0.1)
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        servers, urls = [], []
        for number in range(2):
            clocks = ServerClocks(time.monotonic, time.time)
            server = SimulatedServer(options=options, clocks=clocks, rng=Random(number))
            stack.push_async_callback(server.stop)
            servers.append(server)
            urls.append(await server.start())
        ports = await stack.enter_async_context(running_gateway(settings_for(folder, urls)))
        visitor = Visitor(await stack.enter_async_context(aiohttp.ClientSession()), ports)
        await visitor.until('llm_gateway_servers{pool="main",state="up"} 2.0')
        await visitor.until("llm_gateway_backend_metrics_age_seconds{")
        await visitor.until("llm_gateway_event_loop_lag_seconds_count 1.0")
        yield visitor, servers


async def send_too_large_a_head(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: g\r\nX-Large: " + b"x" * 9_000 + b"\r\n\r\n")
    await reader.read()
    writer.close()


async def every_kind_of_traffic(visitor: Visitor, servers: list[SimulatedServer]) -> None:
    assert await visitor.ask() == 200
    assert await visitor.ask() == 200  # the prompt is cached now
    assert await visitor.ask("nothing-of-that-name") == 404
    assert await visitor.ask("away") == 200  # by `chat`
    for server in servers:
        server.vllm.switches.cut = Cut(CutKind.RESET, after_tokens=5)
    assert await visitor.ask() == 200  # a server goes on with the stream of the other
    for server in servers:
        server.vllm.switches.cut = None
        server.vllm.switches.refuse = True
    assert await visitor.ask() == 503
    for server in servers:
        server.vllm.switches.refuse = False
    await send_too_large_a_head(visitor.port)


def faults_of(page: str, definition: MetricDefinition) -> str | None:
    """What is missing of a documented metric."""
    name = definition.name
    families = {family.name: family for family in text_string_to_metric_families(page)}
    family = families.get(name.removesuffix("_total"), families.get(name))
    if family is None or not family.samples:
        return f"{name}: no sample"
    if family.type != definition.kind or family.documentation != definition.meaning:
        return f"{name}: {family.type}, {family.documentation}"
    labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
    if labels != {frozenset(definition.labels)}:
        return f"{name}: labels {labels}"
    if definition.kind is MetricKind.GAUGE or name in NOT_PROVOKED:
        return None
    return None if sum(sample.value for sample in family.samples) else f"{name}: nothing counted"


async def test_every_documented_metric_is_there_after_traffic_of_every_kind(
    tmp_path: Path,
) -> None:
    async with visiting(tmp_path) as (visitor, servers):
        await every_kind_of_traffic(visitor, servers)
        for server in servers:
            server.vllm.live.freeze()
        waiting = [asyncio.create_task(visitor.ask()) for _ in range(3)]  # two places
        await visitor.until('llm_gateway_queue_requests{pool="main",priority="0",service="chat"} 1')
        page = await visitor.page()
        for server in servers:
            server.vllm.live.thaw()
        assert [await each for each in waiting] == [200, 200, 200]
    faults = [fault for each in DEFINITIONS if (fault := faults_of(page, each))]
    assert not faults, faults
