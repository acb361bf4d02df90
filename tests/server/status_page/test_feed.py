import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.server.client_channel import ClientChannel
from gateway.server.status_page.build import LivePage
from gateway.server.status_page.feed import MAX_VIEWERS
from tests.server.gateway_rig import Rig, gateway
from tests.server.live_page_rig import live_page, page_listener
from tests.server.raw_client import RawClient
from tests.server.raw_server import eventually


class Watched:
    """A page with its feed running."""

    def __init__(self, rig: Rig, page: LivePage, port: int, group: asyncio.TaskGroup) -> None:
        self.rig = rig
        self.page = page
        self.port = port
        self.task = group.create_task(page.feed.run())

    async def viewer(self, stack: AsyncExitStack) -> RawClient:
        client = await stack.enter_async_context(RawClient(self.port, limit=1 << 22))
        client.get("/live/events")
        return client


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Watched, AsyncExitStack]]:
    async with gateway() as rig, AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        page = live_page(rig)
        async with page_listener(rig, page) as port:
            running = Watched(rig, page, port, group)
            yield running, stack
            running.task.cancel()


async def update(client: RawClient) -> dict[str, Any]:
    """The events of one update by name."""
    events = (await asyncio.wait_for(client.chunk(), 5)).decode().split("\n\n")
    assert events.pop() == ""
    pairs = [event.split("\ndata: ") for event in events]
    return {name.removeprefix("event: "): json.loads(data) for name, data in pairs}


async def test_a_viewer_gets_the_state_and_the_history_at_once() -> None:
    async with watched() as (running, stack):
        client = await running.viewer(stack)
        status, _, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        first = await update(client)
        assert first["state"]["pools"][0]["pool"] == "pool"
        assert [point["number"] for point in first["points"]] == [0]


async def test_points_are_sent_once_and_those_missed_are_made_up_for() -> None:
    async with watched() as (running, stack):
        client = await running.viewer(stack)
        await client.head()
        await update(client)
        running.page.feed._sampler.make_point()
        running.page.feed._sampler.make_point()
        other = await running.viewer(stack)  # who comes makes everybody get an update
        await other.head()
        assert [point["number"] for point in (await update(client))["points"]] == [1, 2]
        assert [point["number"] for point in (await update(other))["points"]] == [0, 1, 2]


async def test_nothing_is_encoded_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched() as (running, stack):
        await asyncio.sleep(0)
        assert running.page.feed._sampler.history.made == 1
        looks = 0
        state = running.page.feed._sampler.state

        def counting() -> bytes:
            nonlocal looks
            looks += 1
            return state()

        monkeypatch.setattr(running.page.feed._sampler, "state", counting)
        running.page.feed._somebody_came.set()
        await asyncio.sleep(0.005)
        assert looks == 0
        client = await running.viewer(stack)
        await client.head()
        assert looks == 1


async def test_a_viewer_that_leaves_is_forgotten() -> None:
    async with watched() as (running, stack):
        client = await running.viewer(stack)
        await client.head()
        assert running.page.feed.viewers == 1
        client.writer.close()
        await eventually(lambda: running.page.feed.viewers == 0)


async def test_too_many_viewers_are_told_to_come_later() -> None:
    async with watched() as (running, stack):
        for _ in range(MAX_VIEWERS):
            await (await running.viewer(stack)).head()
        client = await running.viewer(stack)
        response = await client.response()
        assert response.status == 503
        assert response.headers["retry-after"] == "10"
        assert b"are watching already" in response.body


async def test_streams_end_when_the_gateway_stops() -> None:
    async with watched() as (running, stack):
        client = await running.viewer(stack)
        await client.head()
        await update(client)
        running.task.cancel()
        assert await asyncio.wait_for(client.chunk(), 5) == b""
        late = await running.viewer(stack)
        assert (await late.response()).status == 503


async def test_a_viewer_that_does_not_read_gets_nothing_more_and_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ClientChannel, "congested", True)
    async with watched() as (running, stack):
        client = await running.viewer(stack)
        feed = running.page.feed
        await eventually(lambda: feed.viewers == 1)
        (viewer,) = feed._viewers
        feed._send_all(viewer.read_at + 29.0)
        assert not viewer.over.is_set()
        feed._send_all(viewer.read_at + 31.0)
        assert await client.at_end()
        assert feed.viewers == 0
