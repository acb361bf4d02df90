import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from gateway.scheduling.model import BackendId, ServiceName
from gateway.server.status_page.assets import load_assets
from gateway.server.status_page.build import LivePage
from tests.server.gateway_rig import CHAT, Rig, chat, gateway
from tests.server.live_page_rig import NOON, keep, live_page, page_listener
from tests.server.raw_client import RawClient, RawResponse
from tests.server.raw_server import ok, serving
from tests.telemetry.record_builder import make_record

ANSWER = ok(b"{}", b"content-type: application/json")


@asynccontextmanager
async def page_of(rig: Rig) -> AsyncIterator[tuple[LivePage, RawClient]]:
    page = live_page(rig)
    async with page_listener(rig, page) as port, RawClient(port, limit=1 << 20) as client:
        yield page, client


async def ask(client: RawClient, path: str, *headers: str, method: str = "GET") -> RawResponse:
    client.get(path, *headers, method=method)
    return await asyncio.wait_for(client.response(bodiless=method == "HEAD"), 5)


async def told(client: RawClient, path: str) -> Any:  # noqa: ANN401 - any JSON
    response = await ask(client, path)
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    return json.loads(response.body)


async def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline() -> None:
    async with gateway() as rig, page_of(rig) as (_, client):
        response = await ask(client, "/")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(rb"<script>|<style>|\son\w+=|style=", response.body)


async def test_every_file_that_the_page_names_is_served() -> None:
    async with gateway() as rig, page_of(rig) as (_, client):
        page = (await ask(client, "/")).body.decode()
        names = set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page))
        modules = {path: asset for path, asset in load_assets().items() if path.endswith(".js")}
        for asset in modules.values():
            imported = re.findall(r'from "\./([^"]+)"', asset.body.decode())
            names |= {f"/assets/{name}" for name in imported}
        assert len(names) > 10
        for name in names:
            assert (await ask(client, name)).status == 200, name


async def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    async with gateway() as rig, page_of(rig) as (_, client):
        tag = (await ask(client, "/assets/main.js")).headers["etag"]
        again = await ask(client, "/assets/main.js", f"If-None-Match: {tag}")
        assert (again.status, again.body) == (304, b"")


async def test_no_other_file_can_be_had() -> None:
    async with gateway() as rig, page_of(rig) as (_, client):
        for path in ("/assets/", "/assets/../feed.py", "/assets/%2e%2e/feed.py", "/assets/x"):
            assert (await ask(client, path)).status == 404, path


def test_vendored_files_come_with_their_licence() -> None:
    vendor = files("gateway.server.status_page") / "assets" / "vendor"
    assert "MIT License" in (vendor / "uPlot.LICENSE").read_text()


async def test_the_state_names_pools_servers_and_services() -> None:
    async with gateway(serving(ANSWER)) as rig, page_of(rig) as (_, client):
        state = await told(client, "/live/state")
        assert (state["at"], state["version"]) == (NOON, "1.2.3")
        assert state["pools"][0]["backends"][0]["backend_id"] == "s0"
        assert state["pools"][0]["services"][0]["service"] == "default"


async def test_the_state_has_servers_that_have_never_answered() -> None:
    async with gateway(serving(ANSWER)) as rig, page_of(rig) as (_, client):
        rig.backends.add(BackendId("away"), rig.clients[BackendId("s0")])
        (pool,) = (await told(client, "/live/state"))["pools"]
        assert [(each["backend_id"], each["usable"]) for each in pool["backends"]] == [
            ("s0", True),
            ("away", False),
        ]


async def test_requests_are_told_newest_first_and_as_many_as_are_asked_for() -> None:
    async with gateway() as rig, page_of(rig) as (page, client):
        for number in range(60):
            keep(page, make_record(request_id=f"r{number}"))
        rows = await told(client, "/live/requests?limit=2")
        assert rows["kept"] == 60
        assert [row["record"]["request_id"] for row in rows["requests"]] == ["r59", "r58"]
        for limit in ("", "?limit=x", "?limit=-1", "?limit=99999999999"):
            assert len((await told(client, f"/live/requests{limit}"))["requests"]) == 50


async def test_requests_can_be_searched() -> None:
    async with gateway() as rig, page_of(rig) as (page, client):
        keep(page, make_record(service=ServiceName("chat"), status=200))
        keep(page, make_record(service=ServiceName("code"), status=503))
        rows = (await told(client, "/live/requests?search=code%20503"))["requests"]
        assert [row["record"]["service"] for row in rows] == ["code"]


async def test_requests_can_be_told_the_slowest_first() -> None:
    async with gateway() as rig, page_of(rig) as (page, client):
        for ttft_s in (0.1, 0.3, 0.2):
            keep(page, make_record(ttft_s=ttft_s))
        rows = (await told(client, "/live/requests?order=ttft"))["requests"]
        assert [row["record"]["ttft_s"] for row in rows] == [0.3, 0.2, 0.1]
        assert (await ask(client, "/live/requests?order=colour")).status == 400


async def test_a_request_is_told_with_its_explanation_by_either_of_its_ids() -> None:
    async with (
        gateway(serving(ANSWER)) as rig,
        rig.client() as user,
        page_of(rig) as (page, client),
    ):
        user.post(CHAT, chat(), "Content-Type: application/json", "X-Request-Id: mine")
        await user.response()
        keep(page, rig.records.all[-1])
        for name in ("mine", "gw-0"):
            found = await told(client, f"/live/requests/{name}")
            assert found["request"]["record"]["lease_id"] == "gw-0"
            assert found["explanation"]["chosen"] == "s0"
            assert found["explanation"]["candidates"][0]["backend_id"] == "s0"


async def test_a_request_that_is_not_kept_is_a_404() -> None:
    async with gateway() as rig, page_of(rig) as (_, client):
        assert (await ask(client, "/live/requests/none")).status == 404


async def test_names_of_clients_that_are_no_unicode_are_told_escaped() -> None:
    async with gateway() as rig, page_of(rig) as (page, client):
        keep(page, make_record(model="\ud800<script>"))
        rows = (await told(client, "/live/requests"))["requests"]
        assert rows[0]["record"]["model"] == "\ud800<script>"


async def test_a_query_of_very_many_fields_is_refused_as_the_clients_fault() -> None:
    async with gateway() as rig, page_of(rig) as (_, client):
        path = "/live/requests?" + "&".join(f"a{number}=1" for number in range(50))
        assert (await ask(client, path)).status == 400


async def test_asking_for_the_stream_by_head_opens_none() -> None:
    async with gateway() as rig, page_of(rig) as (page, client):
        assert (await ask(client, "/live/events", method="HEAD")).status == 200
        assert page.feed.viewers == 0
