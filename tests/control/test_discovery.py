import logging
from pathlib import Path

import pytest

from benchmarks.live.dns_server import dns_server
from tests.control.running import ModelServer, eventually, pool, ready, running, settings
from tests.discovery.kubernetes_stub import (
    OBJECTIVES,
    PODS,
    POOLS,
    KubernetesStub,
    inference_pool,
    objective,
    pod,
)
from tests.server.gateway_rig import CHAT, chat

NAME = "vllm.test"


async def test_a_server_that_dns_names_answers_requests() -> None:
    async with ModelServer() as server, dns_server(NAME) as dns:
        dns.records = {"A": ["127.0.0.1"]}
        source = {"name": NAME, "port": server.port, "nameserver": f"127.0.0.1:{dns.port}"}
        found = settings(pool(discovery={"dns": source}))
        async with running(found) as gateway, gateway.client() as client:
            await ready(gateway)
            client.post(CHAT, chat())
            assert (await client.response()).status == 200


async def test_a_file_adds_to_the_servers_that_are_configured(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    async with ModelServer() as one, ModelServer() as two:
        path.write_text(f"servers: [{two.url}]")
        found = settings(pool(one, discovery={"file": {"path": str(path), "interval": "2ms"}}))
        async with running(found) as gateway:
            await eventually(lambda: "/metrics" in one.asked and "/metrics" in two.asked)
            path.write_text("servers: []")
            async with gateway.client() as client:
                await eventually(lambda: not two.open_peers)
                client.post(CHAT, chat())
                assert (await client.response()).status == 200
                assert one.answered == 1


async def test_a_server_in_two_pools_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "servers.yaml"
    async with ModelServer() as one, ModelServer() as two:
        path.write_text(f"servers: [{two.url}, {one.url}/]")
        source = {"file": {"path": str(path), "interval": "2ms"}}
        found = settings(pool(one), {"name": "other", "discovery": source})
        async with running(found):
            await eventually(lambda: "/metrics" in two.asked)
            path.write_text(f"servers: [{one.url}, {two.url}, 'http://127.0.0.1:9']")
            await eventually(lambda: "127.0.0.1:9 is out" in caplog.text)
        warning = f"server {one.url} is in pools pool, other: each reckons"
        assert caplog.text.count(warning) == caplog.text.count(" is in pools ") == 1


async def test_a_source_that_changes_keeps_its_servers_until_it_has_found_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with ModelServer() as server:
        first.write_text(f"servers: [{server.url}]")

        def reading(path: Path) -> dict[str, object]:
            return pool(discovery={"file": {"path": str(path), "interval": "2ms"}})

        async with running(settings(reading(first))) as gateway:
            await ready(gateway)
            gateway.loaded = settings(reading(second))
            gateway.configuration.reload()
            await eventually(lambda: f"{second}: cannot be read" in caplog.text)
            await ready(gateway)
            gateway.loaded = settings(pool())
            gateway.configuration.reload()
            await eventually(lambda: not server.open_peers)


async def test_priorities_of_inference_objectives_are_followed(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    async with ModelServer() as server, KubernetesStub() as cluster:
        cluster.put(POOLS, inference_pool("llama", {"app": "vllm"}, server.port))
        cluster.put(PODS, pod("a", "127.0.0.1"))
        cluster.put(OBJECTIVES, objective("chat", "llama", 7))
        cluster.put(OBJECTIVES, objective("nobody", "llama", 7))
        kubernetes = {
            "inference_pool": "llama",
            "api_server": cluster.url,
            "token_file": str(tmp_path / "none"),
        }
        services = ({"name": "chat", "model": "base"},)
        found = settings(pool(services=services, discovery={"kubernetes": kubernetes}))
        async with running(found) as gateway, gateway.client() as client:
            await ready(gateway)

            def priority() -> int:
                return gateway.configuration.settings.pools[0].services[0].priority

            await eventually(lambda: priority() == 7)
            assert "InferenceObjectives without a service: nobody" in caplog.text
            client.post(CHAT, chat())
            assert (await client.response()).status == 200
            gateway.loaded = found
            gateway.configuration.reload()
            assert priority() == 7
            cluster.delete(OBJECTIVES, "chat")
            await eventually(lambda: priority() == -1)


async def test_a_source_that_is_configured_no_longer_takes_its_priorities_along(
    tmp_path: Path,
) -> None:
    async with ModelServer() as server, KubernetesStub() as cluster:
        cluster.put(POOLS, inference_pool("llama", {"app": "vllm"}, server.port))
        cluster.put(OBJECTIVES, objective("chat", "llama", 7))
        kubernetes = {
            "inference_pool": "llama",
            "api_server": cluster.url,
            "token_file": str(tmp_path / "none"),
        }
        services = ({"name": "chat", "model": "base"},)
        found = settings(pool(server, services=services, discovery={"kubernetes": kubernetes}))
        async with running(found) as gateway:

            def priority() -> int:
                return gateway.configuration.settings.pools[0].services[0].priority

            await eventually(lambda: priority() == 7)
            gateway.loaded = settings(pool(server, services=services))
            gateway.configuration.reload()
            await eventually(lambda: priority() == -1)
            await eventually(lambda: not cluster.watching(OBJECTIVES))


async def test_how_discovery_fares_is_in_the_metrics(tmp_path: Path) -> None:
    async with ModelServer() as server:
        source = {"path": str(tmp_path / "none"), "interval": "2ms"}
        async with running(settings(pool(server, discovery={"file": source}))) as gateway:
            await ready(gateway)
            gateway.configuration.reload()
            async with gateway.admin() as admin:
                admin.get("/metrics")
                page = (await admin.response()).body.decode()
            assert 'llm_gateway_servers{pool="pool",state="up"} 1.0' in page
            assert 'llm_gateway_discovery_errors_total{pool="pool",source="file"}' in page
            assert 'llm_gateway_reloads_total{result="ok"} 1.0' in page
