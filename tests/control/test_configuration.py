import logging

import pytest

from gateway.settings.problems import ConfigurationError, fault
from gateway.settings.schema import Settings
from tests.control.running import ModelServer, eventually, pool, ready, running, settings
from tests.server.gateway_rig import CHAT, chat
from tests.server.raw_server import DONE, event

CHAT_SERVICE = {"name": "chat", "model": "base", "objective": {"ttft": "1s"}}


async def test_a_reload_brings_a_service_that_is_routed_to_at_once() -> None:
    async with ModelServer() as server:
        first = settings(pool(server, services=({"name": "other"},)))
        async with running(first) as gateway, gateway.client() as client:
            await ready(gateway)
            client.post(CHAT, chat())
            assert (await client.response()).status == 404
            gateway.loaded = settings(pool(server, services=(CHAT_SERVICE,)))
            gateway.configuration.reload()
            client.post(CHAT, chat())
            assert (await client.response()).status == 200


async def test_a_stream_goes_on_over_a_reload_that_takes_its_service_and_its_server() -> None:
    async with ModelServer() as old, ModelServer() as new:
        first = settings(pool(old, services=(CHAT_SERVICE,)))
        async with running(first) as gateway, gateway.client() as client:
            await ready(gateway)
            client.post(CHAT, chat(stream=True))
            await client.head()
            assert await client.chunk() == event("hi")
            gateway.loaded = settings(pool(new, services=({"name": "base2"},)))
            gateway.configuration.reload()
            old.go.set()
            assert await client.chunk() == event("", "stop") + DONE


async def test_a_reload_adds_and_removes_servers() -> None:
    async with (
        ModelServer() as old,
        ModelServer() as new,
        running(settings(pool(old))) as gateway,
        gateway.client() as client,
    ):
        await ready(gateway)
        gateway.loaded = settings(pool(new))
        gateway.configuration.reload()
        await ready(gateway)
        client.post(CHAT, chat())
        assert (await client.response()).status == 200
        assert (old.answered, new.answered) == (0, 1)


async def test_limits_on_requests_follow_a_reload() -> None:
    async with (
        ModelServer() as server,
        running(settings(pool(server))) as gateway,
        gateway.client() as client,
    ):
        await ready(gateway)
        gateway.loaded = settings(pool(server), max_body_size=3)
        gateway.configuration.reload()
        client.post(CHAT, chat())
        assert (await client.response()).status == 413


async def test_what_cannot_be_loaded_leaves_everything_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load() -> Settings:
        raise fault("gateway.yaml", "port", "'x': expected a number")

    async with (
        ModelServer() as server,
        running(settings(pool(server))) as gateway,
        gateway.client() as client,
    ):
        await ready(gateway)
        before = gateway.configuration.settings
        gateway.configuration._load = load
        with pytest.raises(ConfigurationError):
            gateway.configuration.reload()
        assert gateway.configuration.settings is before
        assert gateway.configuration.failed_reloads == 1
        client.post(CHAT, chat())
        assert (await client.response()).status == 200
        assert "gateway.yaml: port: 'x': expected a number" in caplog.text


async def test_if_one_part_cannot_follow_no_part_does() -> None:
    async with (
        ModelServer() as old,
        ModelServer() as new,
        running(settings(pool(old))) as gateway,
    ):

        def refuse(changed: Settings) -> None:
            raise fault("keys", "api_keys", "cannot be read")

        gateway.configuration.add(refuse)  # type: ignore[arg-type] # never returns
        gateway.loaded = settings(pool(new))
        with pytest.raises(ConfigurationError):
            gateway.configuration.reload()
        await ready(gateway)
        async with gateway.admin() as admin:
            admin.get("/debug/state")
            assert old.url.encode() in (await admin.response()).body


async def test_keys_that_need_a_restart_are_told_and_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ModelServer() as server, running(settings(pool(server))) as gateway:
        gateway.loaded = settings(pool(server), seed=5, queue_timeout="7s")
        gateway.configuration.reload()
        assert gateway.configuration.settings.seed == 1
        assert gateway.configuration.settings.queue_timeout == 7.0
        assert "seed: 5 is followed after a restart only; until then: 1" in caplog.text


async def test_pools_change_by_a_restart_only() -> None:
    async with ModelServer() as server, running(settings(pool(server))) as gateway:
        gateway.loaded = settings(pool(server), {"name": "second"})
        with pytest.raises(ConfigurationError, match="by a restart only"):
            gateway.configuration.reload()


async def test_the_log_tells_what_a_reload_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        ModelServer() as server,
        running(settings(pool(server, upstream_api_key="old"))) as gateway,
    ):
        gateway.loaded = settings(pool(server, upstream_api_key="new"), stall_timeout="9s")
        gateway.configuration.reload()
        assert "-stall_timeout: 2min\n+stall_timeout: 9s" in caplog.text
        assert "new" not in caplog.text
        gateway.configuration.reload()
        assert "configuration reloaded: no change" in caplog.text


async def test_changes_of_services_go_over_what_was_loaded_and_outlast_a_reload() -> None:
    async with (
        ModelServer() as server,
        running(settings(pool(server, services=(CHAT_SERVICE,)))) as gateway,
    ):
        gateway.configuration.change_services("test", {"chat": {"priority": -3}})
        gateway.configuration.reload()
        await eventually(lambda: gateway.configuration.settings)
        async with gateway.admin() as admin:
            admin.get("/debug/state")
            assert b'"priority":-3' in (await admin.response()).body
        gateway.configuration.change_services("test", {})
        assert gateway.configuration.settings.pools[0].services[0].priority == 0


async def test_a_change_of_services_that_is_not_valid_changes_nothing() -> None:
    async with (
        ModelServer() as server,
        running(settings(pool(server, services=(CHAT_SERVICE,)))) as gateway,
    ):
        with pytest.raises(ConfigurationError, match="priority"):
            gateway.configuration.change_services("test", {"chat": {"priority": "urgent"}})
        gateway.configuration.reload()
