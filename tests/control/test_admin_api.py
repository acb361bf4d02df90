import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings.problems import ConfigurationError
from tests.control.running import (
    ModelServer,
    RunningGateway,
    eventually,
    pool,
    ready,
    running,
    settings,
)
from tests.server.gateway_rig import CHAT, chat

CHAT_SERVICE = {"name": "chat", "model": "base", "objective": {"ttft": "1s"}}
JSON = "Content-Type: application/json"


async def call(
    gateway: RunningGateway,
    method: str,
    path: str,
    body: object = None,
    content_type: str = JSON,
) -> tuple[int, Any]:
    """Ask the admin API on a connection of its own."""
    async with gateway.admin() as admin:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: g", content_type]
        lines.append(f"Content-Length: {len(data)}")
        admin.send("\r\n".join([*lines, "", ""]).encode() + data)
        response = await admin.response(bodiless=method == "HEAD")
        return response.status, json.loads(response.body or b"null")


async def servers(gateway: RunningGateway) -> dict[str, str]:
    _, found = await call(gateway, "GET", "/admin/servers")
    return {each["url"]: each["state"] for each in found["servers"]}


async def until_servers(gateway: RunningGateway, expected: dict[str, str]) -> None:
    found: dict[str, str] = {}
    for _ in range(1_000):
        found = await servers(gateway)
        if found == expected:
            return
    raise AssertionError(f"{found}; expected {expected}")


async def status_of_chat(gateway: RunningGateway) -> int:
    async with gateway.client() as client:
        client.post(CHAT, chat())
        return (await client.response()).status


# -- servers ----------------------------------------------------------------------------------


async def test_servers_are_listed_with_what_they_do() -> None:
    async with ModelServer() as server, running(settings(pool(server))) as gateway:
        await until_servers(gateway, {server.url: "up"})
        _, found = await call(gateway, "GET", "/admin/servers")
        assert found["servers"] == [
            {
                "pool": "pool",
                "url": server.url,
                "state": "up",
                "healthy": True,
                "in_flight": 0,
                "sources": ["configuration"],
                "wish": None,
            }
        ]


async def test_a_server_is_added_drained_resumed_and_removed() -> None:
    async with ModelServer() as server, running(settings(pool())) as gateway:
        status, view = await call(gateway, "POST", "/admin/servers", {"url": server.url})
        assert (status, view["sources"]) == (200, ["administrator"])
        await until_servers(gateway, {server.url: "up"})
        assert await status_of_chat(gateway) == 200
        path = f"/admin/servers/{server.url}"
        _, view = await call(gateway, "PATCH", path, {"draining": True})
        assert view["state"] == "draining"
        await call(gateway, "PATCH", path, {"draining": False})
        await until_servers(gateway, {server.url: "up"})
        status, view = await call(gateway, "DELETE", path)
        assert (status, view["state"]) == (200, "leaving")
        await until_servers(gateway, {})


async def test_a_url_in_a_path_may_be_quoted() -> None:
    async with ModelServer() as server, running(settings(pool(server))) as gateway:
        quoted = server.url.replace(":", "%3A").replace("/", "%2F")
        status, _ = await call(gateway, "DELETE", f"/admin/servers/{quoted}")
        assert status == 200


async def test_a_url_may_be_written_in_another_way() -> None:
    async with ModelServer() as server, running(settings(pool(server))) as gateway:
        written = f"HTTP{server.url.removeprefix('http')}/"
        _, view = await call(gateway, "POST", "/admin/servers", {"url": written})
        assert view["sources"] == ["configuration", "administrator"]
        _, view = await call(gateway, "PATCH", f"/admin/servers/{written}", {"draining": True})
        assert (view["url"], view["state"]) == (server.url, "draining")
        assert len(await servers(gateway)) == 1


async def test_a_configured_server_that_is_removed_stays_away_over_a_reload() -> None:
    async with ModelServer() as server, running(settings(pool(server))) as gateway:
        await call(gateway, "DELETE", f"/admin/servers/{server.url}")
        await until_servers(gateway, {})
        gateway.configuration.reload()
        assert await servers(gateway) == {}
        await call(gateway, "POST", "/admin/servers", {"url": server.url})
        await until_servers(gateway, {server.url: "up"})


async def test_a_server_goes_to_the_pool_that_is_named() -> None:
    async with (
        ModelServer() as server,
        running(settings(pool(), {"name": "second"})) as gateway,
    ):
        status, found = await call(gateway, "POST", "/admin/servers", {"url": server.url})
        assert (status, found["error"]["param"]) == (400, "pool")
        assert found["error"]["message"] == "`pool` must be one of pool, second."
        body = {"url": server.url, "pool": "second"}
        _, view = await call(gateway, "POST", "/admin/servers", body)
        assert view["pool"] == "second"
        status, found = await call(gateway, "POST", "/admin/servers", body | {"pool": "pool"})
        assert (status, found["error"]["param"]) == (400, "url")


# -- services ---------------------------------------------------------------------------------


async def test_services_are_listed_with_how_they_fare() -> None:
    async with (
        ModelServer() as server,
        running(settings(pool(server, services=(CHAT_SERVICE,)))) as gateway,
    ):
        await ready(gateway)
        assert await status_of_chat(gateway) == 200
        _, found = await call(gateway, "GET", "/admin/services")
        (view,) = found["services"]
        assert (view["name"], view["priority"], view["changed"]) == ("chat", "Critical", [])
        assert view["objective"]["ttft"] == "1s"
        assert (view["adherence"]["target"], view["adherence"]["ended"]) == (0.95, 1)


async def test_a_service_is_changed_and_changed_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        ModelServer() as server,
        running(settings(pool(server, services=(CHAT_SERVICE,)))) as gateway,
    ):
        change = {"priority": "Non-Critical", "objective": {"tpot": "40ms"}}
        status, view = await call(gateway, "PATCH", "/admin/services/chat", change)
        assert (status, view["priority"]) == (200, "Non-Critical")
        assert view["objective"]["tpot"] == "40ms"
        assert "ttft" not in view["objective"]
        assert view["changed"] == ["objective", "priority"]
        await call(gateway, "PATCH", "/admin/services/chat", {"fairness_weight": 3})
        gateway.configuration.reload()
        _, found = await call(gateway, "GET", "/admin/services")
        assert found["services"][0]["fairness_weight"] == 3
        assert found["services"][0]["priority"] == "Non-Critical"
        assert "configuration changed by administrator" in caplog.text
        _, view = await call(gateway, "DELETE", "/admin/services/chat/changes")
        assert (view["priority"], view["changed"]) == ("Critical", [])


async def test_a_change_of_weights_moves_the_traffic() -> None:
    service = {
        "name": "chat",
        "targets": ({"name": "one", "weight": 1}, {"name": "two", "weight": 0}),
    }
    async with (
        ModelServer("one") as one,
        ModelServer("two") as two,
        running(settings(pool(one, two, services=(service,)))) as gateway,
    ):
        await until_servers(gateway, {one.url: "up", two.url: "up"})
        body = chat(model="chat")
        async with gateway.client() as client:
            client.post(CHAT, body)
            assert (await client.response()).status == 200
            targets = [{"name": "one", "weight": 0}, {"name": "two", "weight": 1}]
            await call(gateway, "PATCH", "/admin/services/chat", {"targets": targets})
            client.post(CHAT, body)
            assert (await client.response()).status == 200
        assert (one.answered, two.answered) == (1, 1)


# -- keeping ----------------------------------------------------------------------------------


async def test_only_what_was_asked_to_be_kept_outlasts_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    async with ModelServer() as one, ModelServer() as two, ModelServer() as three:
        found = settings(pool(one, services=(CHAT_SERVICE,)), admin_changes_file=path)
        async with running(found) as gateway:
            await call(gateway, "POST", "/admin/servers", {"url": two.url, "persist": True})
            await call(gateway, "POST", "/admin/servers", {"url": three.url})
            await call(gateway, "DELETE", f"/admin/servers/{one.url}?persist=true")
            change = {"fairness_weight": 2, "persist": True}
            await call(gateway, "PATCH", "/admin/services/chat", change)
            await call(gateway, "PATCH", "/admin/services/chat", {"priority": 9})
        kept = yaml.safe_load(path.read_text())
        assert kept["servers"]["pool"].keys() == {two.url, one.url}
        async with running(found) as gateway:
            await until_servers(gateway, {two.url: "up"})
            _, services = await call(gateway, "GET", "/admin/services")
            assert services["services"][0]["changed"] == ["fairness_weight"]


async def test_what_is_to_be_kept_can_be_said_in_the_query_too(tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    async with ModelServer() as one, ModelServer() as two:
        found = settings(pool(one, services=(CHAT_SERVICE,)), admin_changes_file=path)
        async with running(found) as gateway:
            await call(gateway, "POST", "/admin/servers?persist=true", {"url": two.url})
            drain = {"draining": True}
            await call(gateway, "PATCH", f"/admin/servers/{one.url}?persist=true", drain)
            change = {"fairness_weight": 2}
            await call(gateway, "PATCH", "/admin/services/chat?persist=true", change)
        kept = yaml.safe_load(path.read_text())
        assert kept["servers"]["pool"].keys() == {two.url, one.url}
        assert kept["services"] == {"chat": {"fairness_weight": 2}}


async def test_a_kept_change_that_is_not_valid_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text("services: {chat: {fairness_weight: -4}}")
    found = settings(pool(services=(CHAT_SERVICE,)), admin_changes_file=path)
    with pytest.raises(ConfigurationError, match=r"changes.yaml: .*fairness_weight: -4"):
        async with running(found):
            pass


async def test_kept_changes_of_what_is_no_longer_configured_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text("services: {gone: {fairness_weight: 4}}\nservers: {away: {}}")
    async with running(settings(pool(services=(CHAT_SERVICE,)), admin_changes_file=path)):
        pass
    assert f"{path}: no service is named 'gone'" in caplog.text
    assert f"{path}: no pool is named 'away'" in caplog.text


async def test_changes_of_a_service_that_is_gone_are_listed_and_can_be_removed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text("services: {gone/1: {fairness_weight: 4}}")
    found = settings(pool(services=(CHAT_SERVICE,)), admin_changes_file=path)
    async with running(found) as gateway:
        _, listed = await call(gateway, "GET", "/admin/services")
        assert listed["idle_changes"] == ["gone/1"]
        removal = "/admin/services/gone%2F1/changes?persist=true"
        status, view = await call(gateway, "DELETE", removal)
        assert (status, view) == (200, {"name": "gone/1", "changed": []})
        _, listed = await call(gateway, "GET", "/admin/services")
        assert listed["idle_changes"] == []
        assert yaml.safe_load(path.read_text())["services"] == {}
        assert (await call(gateway, "DELETE", removal))[0] == 404


async def test_without_a_file_nothing_can_be_kept_and_nothing_is_changed() -> None:
    async with ModelServer() as server, running(settings(pool())) as gateway:
        body = {"url": server.url, "persist": True}
        status, found = await call(gateway, "POST", "/admin/servers", body)
        assert (status, found["error"]["param"]) == (400, "admin_changes_file")
        await until_servers(gateway, {})


async def test_a_file_that_is_not_right_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text("servers: {pool: {'http://a:1': {wish: explode}}}")
    with pytest.raises(ConfigurationError, match=r"changes.yaml: servers.pool.*wish: 'explode'"):
        async with running(settings(pool(), admin_changes_file=path)):
            pass


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/admin/servers", {"url": "gpu:1"}, 400, "url: 'gpu:1': expected a URL"),
        ("POST", "/admin/servers", {}, 400, "url: missing, and required"),
        ("POST", "/admin/servers", {"url": "http://a", "x": 1}, 400, "x: unknown key"),
        ("POST", "/admin/servers", [1], 400, "must be an object"),
        ("PATCH", "/admin/servers/http://a", {"draining": True}, 404, "No pool has the server"),
        ("DELETE", "/admin/servers/http://a", None, 404, "No pool has the server"),
        ("PATCH", "/admin/services/x", {}, 404, "No pool has the service 'x'"),
        ("PATCH", "/admin/services/chat", {"priority": "hi"}, 400, "priority: 'hi': expected"),
        ("PATCH", "/admin/services/chat", {"model": "x"}, 400, "model: expected one of"),
        ("PATCH", "/admin/services/chat", {"persist": 1}, 400, "`persist` must be true or false"),
        ("POST", "/admin/servers", {"url": "http://a", "persist": "yes"}, 400, "persist: 'yes'"),
        ("POST", "/admin/servers?persist=1", {"url": "http://a"}, 400, "`persist` must be true"),
        ("DELETE", "/admin/services/chat", None, 405, "does not take this method"),
        ("PUT", "/admin/servers", {}, 405, "does not take this method"),
        ("GET", "/admin/nothing", None, 404, "nothing at this path"),
    ],
)
async def test_what_is_wrong_is_told_in_the_shape_of_openai(
    method: str, path: str, body: object, status: int, message: str
) -> None:
    async with running(settings(pool(services=(CHAT_SERVICE,)))) as gateway:
        got, answer = await call(gateway, method, path, body)
        assert got == status
        assert message in answer["error"]["message"]
        assert answer["error"]["code"] == status


async def test_a_page_of_another_origin_can_change_nothing() -> None:
    """Without a question to us first, browsers send other types only."""
    async with ModelServer() as server, running(settings(pool())) as gateway:
        for path, body in (("/admin/servers", {"url": server.url}), ("/admin/reload", {})):
            status, _ = await call(gateway, "POST", path, body, "Content-Type: text/plain")
            assert status == 415
        assert await servers(gateway) == {}


async def test_a_body_that_is_not_json_is_refused() -> None:
    async with running(settings(pool())) as gateway, gateway.admin() as admin:
        admin.post("/admin/servers", b"{nope")
        assert (await admin.response()).status == 400


# -- reload -----------------------------------------------------------------------------------


async def test_a_reload_can_be_asked_for_and_says_what_is_wrong() -> None:
    async with ModelServer() as server, running(settings(pool())) as gateway:
        gateway.loaded = settings(pool(server))
        assert await call(gateway, "POST", "/admin/reload") == (200, {"reloads": 1})
        await until_servers(gateway, {server.url: "up"})
        gateway.loaded = settings(pool(), {"name": "second"})
        status, answer = await call(gateway, "POST", "/admin/reload")
        assert status == 400
        assert "by a restart only" in answer["error"]["message"]
        await eventually(lambda: gateway.configuration.failed_reloads == 1)
