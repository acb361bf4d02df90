import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rich.console import Console

from gateway.__main__ import main
from gateway.server.admin import AdminPages
from gateway.server.app import Listener, ListenOptions
from gateway.top import figures
from gateway.top.admin_client import AdminClient, NotAuthorized, Sight, Unreachable
from gateway.top.screen import render
from gateway.top.terminal import print_once, watch
from tests.browser.scenes import HOSTILE, Scene, large, troubled, unmet


@asynccontextmanager
async def listening(scene: Scene) -> AsyncIterator[str]:
    """The administration listener of a scene, its feed running; the URL."""
    admin = AdminPages(pools=scene.pools, render_metrics=lambda: b"", sections=[scene.page.pages])
    listener = Listener(admin.handle, ListenOptions())
    await listener.open()
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(scene.page.feed.run())
        try:
            yield f"http://127.0.0.1:{listener.port}"
        finally:
            feed.cancel()
            await listener.close()
            scene.driver.stop()


def screen(height: int = 40, width: int = 160) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_the_state_is_printed_once() -> None:
    async with listening(troubled()) as url:
        console = screen()
        await asyncio.to_thread(print_once, AdminClient(url), console)
        text = text_of(console)
        assert "1 of 2 servers are down or ejected" in text
        for part in ("TTFT 1.00 s, TPOT 50.0 ms for 95 %", "lora-a (1)", "slow-one", "no_capacity"):
            assert part in text


async def test_the_state_is_followed_with_the_newest_point() -> None:
    async with listening(troubled()) as url:
        sights = AdminClient(url).sights(rows=2)
        first = await asyncio.to_thread(next, sights)
        assert len(first.requests) == 2
        assert first.state["pools"][0]["pool"] == "pool"
        second = await asyncio.to_thread(next, sights)
        assert second.point is not None
        assert second.point["number"] == 0
        sights.close()


async def test_the_end_of_the_stream_is_told() -> None:
    scene = troubled()
    console = screen()
    async with listening(scene) as url, asyncio.TaskGroup() as group:
        watching = group.create_task(asyncio.to_thread(watch, AdminClient(url), console))
        while not scene.page.feed.viewers:
            await asyncio.sleep(0.002)
        for viewer in scene.page.feed._viewers:
            viewer.over.set()
        await watching
    assert "The gateway has stopped." in text_of(console)


async def test_a_large_pool_fits_the_terminal_with_the_worst_on_it() -> None:
    async with listening(large(servers=60)) as url:
        sight = await asyncio.to_thread(AdminClient(url).look, rows=10)
    sight.state["pools"][0]["backends"][59]["usable"] = False
    console = screen(height=40)
    console.print(render(sight, height=40))
    lines = text_of(console).splitlines()
    assert len(lines) <= 40
    assert any("gpu-059:8000" in line and "down" in line for line in lines)
    assert any("more servers, none of them worse" in line for line in lines)


async def test_a_narrow_terminal_cuts_no_figure_no_id_and_no_reason() -> None:
    scene = troubled()
    unmet(scene)
    async with listening(scene) as url:
        sight = await asyncio.to_thread(AdminClient(url).look, rows=10)
    console = screen(width=80)
    console.print(render(sight, height=None))
    text = text_of(console)
    assert max(map(len, text.splitlines())) <= 80
    for row in sight.requests:
        record = row["record"]
        assert f"{record['request_id']} " in text
        assert f" {figures.seconds(record['e2e_s'])}\n" in text
    assert "gpu-3:8000 out for 1 s: Connection refused\n" in text


def test_names_are_shown_without_their_control_characters() -> None:
    scene = troubled()
    told = json.loads(scene.page.pages._sampler.state())
    told["pools"][0]["backends"][0]["resident_adapters"] = ["\x1b[2Jgone", HOSTILE]
    console = screen()
    console.print(render(Sight(told, None, []), height=None))
    assert "\x1b" not in text_of(console)
    scene.driver.stop()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", NotAuthorized),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope", Unreachable),
    ],
)
async def test_what_is_no_gateway_or_wants_a_key_is_told(
    answer: bytes, expected: type[Exception]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(expected):
            await asyncio.to_thread(AdminClient(f"http://127.0.0.1:{port}").look, rows=1)


@pytest.mark.usefixtures("clean_environment")
async def test_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await asyncio.to_thread(main, ["top", "--once", "--url", url]) == 2
        monkeypatch.setenv("GATEWAY_ADMIN_API_KEY", "from-environment")
        assert await asyncio.to_thread(main, ["top", "--once", "--url", url]) == 2
        assert await asyncio.to_thread(main, ["top", "--once", "--url", url, "--key", "mine"]) == 2
    assert b"Authorization" not in heads[0]
    assert b"Authorization: Bearer from-environment\r\n" in heads[1]
    assert b"Authorization: Bearer mine\r\n" in heads[2]


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("url", "status", "expected"),
    [("gpu-1", 2, "expected a URL such as"), ("http://127.0.0.1:1", 1, "is the gateway running")],
)
def test_a_wrong_address_is_told(
    url: str, status: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--once", "--url", url]) == status
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0123, "12.3 ms"), (0.5, "500 ms"), (1.5, "1.50 s")],
)
def test_durations_have_units(value: float | None, text: str) -> None:
    assert figures.seconds(value) == text


def test_adherence_does_not_look_met_where_it_is_not() -> None:
    assert figures.adherence(0.94999) == "94.9 %"


def pool_state(name: str, *usable: int) -> dict[str, Any]:
    servers = [
        {"usable": bool(each), "draining": False, "ejected": False, "silence": None}
        for each in usable
    ]
    return {"pool": name, "backends": servers, "services": [], "queued_requests": 0}


@pytest.mark.parametrize(
    ("pools", "told"),
    [
        ([pool_state("a", 1)], ("all is well: 1 of 1 servers take requests", 0)),
        ([pool_state("a", 1, 0)], ("1 of 2 servers are down or ejected", 1)),
        (
            [pool_state("a", 1), pool_state("b", 0), pool_state("c")],
            ("no server can be used of pool b, c; 1 of 2 servers are down or ejected", 2),
        ),
        ([pool_state("a", 0), pool_state("b")], ("no server can be used", 2)),
    ],
)
def test_the_verdict_tells_of_every_pool_without_a_server(
    pools: list[dict[str, Any]], told: tuple[str, int]
) -> None:
    assert figures.verdict({"pools": pools}) == told


async def test_a_server_that_has_never_answered_is_told_with_the_reason() -> None:
    scene = troubled()
    unmet(scene)
    async with listening(scene) as url:
        console = screen()
        await asyncio.to_thread(print_once, AdminClient(url), console)
        text = text_of(console)
        assert "2 of 4 servers are down or ejected" in text
        reason, never = [line for line in text.splitlines() if "gpu-3" in line]
        assert "out for 1 s: Connection refused" in reason
        assert "not heard from" in never
        (draining,) = [line for line in text.splitlines() if "gpu-4" in line]
        assert "draining" in draining
