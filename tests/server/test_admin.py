import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.scheduling.model import BackendId
from gateway.server.admin import AdminPages
from gateway.server.app import Listener, ListenOptions
from tests.server.gateway_rig import CHAT, Rig, chat, gateway
from tests.server.raw_client import RawClient, RawResponse
from tests.server.raw_server import ok, serving

ANSWER = ok(b"{}", b"content-type: application/json")


@asynccontextmanager
async def administration(rig: Rig) -> AsyncIterator[RawClient]:
    pages = AdminPages(pools=rig.pools, render_metrics=lambda: b"up 1\n")
    listener = Listener(pages.handle, ListenOptions())
    await listener.open()
    try:
        async with RawClient(listener.port) as client:
            yield client
    finally:
        await listener.close()


async def ask(client: RawClient, path: str, method: str = "GET") -> RawResponse:
    client.get(path, method=method)
    return await asyncio.wait_for(client.response(), 5)


async def test_the_metrics_page_is_what_the_renderer_made() -> None:
    async with gateway() as rig, administration(rig) as client:
        response = await ask(client, "/metrics")
        assert (response.status, response.body) == (200, b"up 1\n")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_the_state_of_every_pool_is_shown() -> None:
    async with gateway(serving(ANSWER)) as rig, administration(rig) as client:
        state = json.loads((await ask(client, "/debug/state")).body)
        assert state["pools"]["pool"]["backends"][0]["backend_id"] == "s0"


async def test_a_server_that_has_never_answered_is_shown_as_not_usable() -> None:
    async with gateway(serving(ANSWER)) as rig, administration(rig) as client:
        rig.backends.add(BackendId("away"), rig.clients[BackendId("s0")])
        state = json.loads((await ask(client, "/debug/state")).body)
        servers = state["pools"]["pool"]["backends"]
        assert [(each["backend_id"], each["usable"]) for each in servers] == [
            ("s0", True),
            ("away", False),
        ]


async def test_a_dispatch_is_explained_by_its_id() -> None:
    async with (
        gateway(serving(ANSWER)) as rig,
        rig.client() as user,
        administration(rig) as client,
    ):
        user.post(CHAT, chat())
        await user.response()
        explanation = json.loads((await ask(client, "/debug/requests/gw-0")).body)
        assert explanation["chosen"] == "s0"
        assert explanation["forecast"]


async def test_the_state_tells_what_failed_at_a_server() -> None:
    broken = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"
    async with (
        gateway(serving(broken)) as rig,
        rig.client() as user,
        administration(rig) as client,
    ):
        user.post(CHAT, chat())
        await user.response()
        (pool,) = json.loads((await ask(client, "/debug/state")).body)["pools"].values()
        assert pool["backends"][0]["failures"] == {"server_error": 1}
        assert pool["backends"][0]["circuit"] == "closed"


async def test_the_listener_is_alive() -> None:
    async with gateway() as rig, administration(rig) as client:
        assert (await ask(client, "/health")).status == 200


async def test_what_is_not_there_is_a_404() -> None:
    async with gateway() as rig, administration(rig) as client:
        for path in ("/debug/requests/none", "/", "/v1/models"):
            assert (await ask(client, path)).status == 404


async def test_who_asks_for_an_unknown_request_is_told_which_id_to_give() -> None:
    async with gateway() as rig, administration(rig) as client:
        answer = await ask(client, "/debug/requests/none")
        assert answer.status == 404
        assert b"lease_id" in answer.body


async def test_pages_are_only_looked_at() -> None:
    async with gateway() as rig, administration(rig) as client:
        response = await ask(client, "/metrics", method="DELETE")
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
