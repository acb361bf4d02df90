import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.model import BackendId
from gateway.server.backend_connector import BackendConnector
from gateway.server.backend_monitor import BackendMonitor
from gateway.server.options import BackendTimeouts
from gateway.server.pool_servers import PoolServers, ServerState, Wish
from tests.control.running import ModelServer
from tests.server.gateway_rig import CHAT, Rig, chat
from tests.server.raw_client import RawClient
from tests.server.raw_server import DONE, event, eventually
from tests.server.test_backend_monitor import FAST


@dataclass
class Pool:
    """A gateway whose servers come and go."""

    rig: Rig
    servers: PoolServers

    def states(self) -> dict[str, str]:
        return {status.url: status.state.value for status in self.servers.statuses()}

    def client(self) -> RawClient:
        return self.rig.client()


@asynccontextmanager
async def pool_of(*engines: ModelServer) -> AsyncIterator[Pool]:
    """A pool without servers; the engines run."""
    for engine in engines:
        await engine.start()
    rig = Rig([])
    monitor = BackendMonitor(
        backends=rig.backends,
        deliver=rig.driver.deliver,
        clock=monotonic_clock,
        rng=Random(1),
        options=FAST,
    )
    servers = PoolServers(
        name="pool",
        backends=rig.backends,
        monitor=monitor,
        driver=rig.driver,
        connector=BackendConnector(timeouts=BackendTimeouts(), clock=monotonic_clock),
    )
    watching = asyncio.create_task(monitor.run())
    await rig.listener.open()
    await asyncio.sleep(0)
    try:
        yield Pool(rig, servers)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await rig.stop()
        for engine in engines:
            engine.go.set()
            await engine.stop()


def up(*engines: ModelServer) -> dict[str, bool]:
    return {engine.url: False for engine in engines}


async def test_a_declared_server_joins_and_is_used() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool, pool.client() as client:
        pool.servers.declare("test", up(engine))
        await eventually(lambda: pool.states() == {engine.url: "up"})
        client.post(CHAT, chat())
        assert (await client.response()).status == 200


async def test_a_server_that_nobody_listens_at_is_down() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        await engine.stop()
        pool.servers.declare("test", up(engine))
        assert pool.states() == {engine.url: "down"}


async def test_a_server_that_drains_from_the_start_is_shown_to_drain() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("test", {engine.url: True})
        contact = pool.rig.backends.contact(BackendId(engine.url))
        assert contact is not None
        await eventually(lambda: contact.healthy)
        (shown,) = pool.rig.pools.pools[0].snapshot().backends
        assert (shown.usable, shown.draining, shown.silence) == (True, True, None)
        assert not pool.rig.backends.any_usable


async def test_a_server_that_is_named_no_longer_is_removed() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("test", up(engine))
        await eventually(lambda: pool.rig.backends.any_usable)
        pool.servers.declare("test", {})
        assert not pool.rig.backends.any_usable
        await eventually(lambda: not pool.states())
        asked = len(engine.asked)
        await asyncio.sleep(0.01)
        assert len(engine.asked) == asked  # nobody looks at it any more
        assert not engine.open_peers


async def test_a_stream_on_a_server_that_is_removed_runs_to_its_end() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool, pool.client() as client:
        pool.servers.declare("test", up(engine))
        await eventually(lambda: pool.rig.backends.any_usable)
        client.post(CHAT, chat(stream=True))
        await client.head()
        assert await client.chunk() == event("hi")
        pool.servers.declare("test", {})
        await asyncio.sleep(0.005)
        (status,) = pool.servers.statuses()
        assert (status.state, status.in_flight) == (ServerState.LEAVING, 1)
        engine.go.set()
        assert await client.chunk() == event("", "stop") + DONE
        await eventually(lambda: not pool.states())
        assert pool.rig.in_flight == 0


async def test_a_removed_server_gets_nothing_new_while_it_ends_what_it_has() -> None:
    old, new = ModelServer(), ModelServer()
    async with pool_of(old, new) as pool, pool.client() as first, pool.client() as second:
        pool.servers.declare("test", up(old))
        await eventually(lambda: pool.rig.backends.any_usable)
        first.post(CHAT, chat(stream=True))
        await first.head()
        pool.servers.declare("test", up(new))
        for _ in range(5):
            second.post(CHAT, chat())
            assert (await second.response()).status == 200
        assert (old.answered, new.answered) == (1, 5)


async def test_a_server_named_again_before_it_is_gone_stays() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool, pool.client() as client:
        pool.servers.declare("test", up(engine))
        await eventually(lambda: pool.rig.backends.any_usable)
        client.post(CHAT, chat(stream=True))
        await client.head()
        pool.servers.declare("test", {})
        pool.servers.declare("test", up(engine))
        engine.go.set()
        await client.chunk()
        await eventually(lambda: not pool.rig.in_flight)
        await asyncio.sleep(0.005)
        assert pool.states() == {engine.url: "up"}
        client2 = pool.client()
        async with client2:
            client2.post(CHAT, chat())
            assert (await client2.response()).status == 200


async def test_a_draining_server_stays_and_takes_requests_again_when_it_drains_no_longer() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool, pool.client() as client:
        pool.servers.declare("test", {engine.url: True})
        await eventually(lambda: pool.servers.statuses()[0].healthy)
        assert pool.states() == {engine.url: "draining"}
        assert not pool.rig.backends.any_usable
        pool.servers.declare("test", up(engine))
        assert pool.rig.backends.any_usable
        pool.servers.declare("test", {engine.url: True})
        client.post(CHAT, chat())  # waits: nobody takes it
        await eventually(lambda: pool.rig.in_flight)
        pool.servers.declare("test", up(engine))
        assert (await client.response()).status == 200


async def test_a_draining_server_that_changes_its_models_does_not_join() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("test", up(engine))
        await eventually(lambda: pool.rig.backends.any_usable)
        pool.servers.declare("test", {engine.url: True})
        engine.pages["/v1/models"] = ModelServer("other").pages["/v1/models"]
        asked = len(engine.asked)
        await eventually(lambda: engine.asked[asked:].count("/v1/models") >= 2)
        assert not pool.rig.backends.any_usable
        pool.servers.declare("test", up(engine))
        assert pool.rig.backends.served("other")


async def test_a_server_stays_while_any_source_names_it() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("dns", up(engine))
        pool.servers.declare("file", up(engine))
        assert pool.servers.statuses()[0].sources == ("dns", "file")
        pool.servers.declare("dns", {})
        assert pool.states() == {engine.url: "down"}
        pool.servers.withdraw("file")
        await eventually(lambda: not pool.states())


async def test_a_server_drains_while_any_source_says_so() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("dns", up(engine))
        pool.servers.declare("file", {engine.url: True})
        assert pool.states() == {engine.url: "draining"}


async def test_the_wishes_of_an_operator_go_over_what_sources_say() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("dns", up(engine))
        pool.servers.override({engine.url: Wish.DRAIN})
        assert pool.states() == {engine.url: "draining"}
        assert pool.servers.statuses()[0].wish is Wish.DRAIN
        pool.servers.override({engine.url: Wish.REMOVE})
        await eventually(lambda: not pool.states())
        pool.servers.declare("dns", up(engine))
        assert not pool.states()
        pool.servers.override({})
        assert pool.states() == {engine.url: "down"}


async def test_a_url_that_cannot_be_used_changes_nothing() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        pool.servers.declare("dns", up(engine))
        with pytest.raises(ValueError, match="must start with http"):
            pool.servers.declare("dns", {"gpu-1:8000": False})
        assert pool.states() == {engine.url: "down"}


async def test_what_the_scheduler_is_told_is_always_about_a_server_it_has() -> None:
    engine = ModelServer()
    async with pool_of(engine) as pool:
        for drains in (True, False, True):
            pool.servers.declare("test", {engine.url: drains})
            await eventually(lambda: pool.servers.statuses()[0].healthy)
        await engine.stop()
        await eventually(lambda: not pool.servers.statuses()[0].healthy)
        pool.servers.declare("test", {})
        await eventually(lambda: not pool.states())
        assert pool.rig.driver.snapshot().ignored_events == 0


async def test_bounds_on_attempts_change_for_servers_that_are_there_and_that_come() -> None:
    old, new = ModelServer(), ModelServer()
    async with pool_of(old, new) as pool:
        pool.servers.declare("test", up(old))
        timeouts = BackendTimeouts(stall_s=7.0)
        pool.servers.reconfigure(timeouts)
        pool.servers.declare("test", up(old, new))
        for backend_id in pool.rig.backends:
            assert pool.rig.backends.client(backend_id)._options.timeouts is timeouts


async def test_each_change_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.server.pool_servers")
    engine = ModelServer()
    async with pool_of(engine) as pool:
        for drains in (False, True, False):
            pool.servers.declare("dns", {engine.url: drains})
        pool.servers.declare("dns", {})
        await eventually(lambda: not pool.states())
        said = [m.replace(engine.url, "S") for m in caplog.messages if "pool pool" in m]
        assert said == [
            "server S is added to pool pool by dns",
            "server S drains in pool pool, in flight: 0",
            "server S of pool pool is wanted again",
            "server S is leaving pool pool, in flight: 0",
            "server S is removed from pool pool",
        ]
