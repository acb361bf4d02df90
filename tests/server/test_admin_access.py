from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.server.admin_access import AdminAccess, is_loopback
from gateway.server.app import Listener, ListenOptions
from gateway.server.client_channel import ClientChannel
from gateway.server.client_request import ClientRequest
from tests.server.raw_client import RawClient, RawResponse

KEY = "ak-administrator"


async def page(request: ClientRequest) -> bool:
    channel = ClientChannel(request)
    channel.send(200, b"", b"page")
    return channel.end()


@asynccontextmanager
async def administration(
    *, key: str | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[RawClient]:
    access = AdminAccess(page, host=host)
    access.set_key(key)
    listener = Listener(access.handle, ListenOptions())
    await listener.open()
    try:
        async with RawClient(listener.port) as client:
            yield client
    finally:
        await listener.close()


async def ask(client: RawClient, *headers: str, path: str = "/metrics", method: str = "GET",
              host: str = "127.0.0.1:8081") -> RawResponse:  # fmt: skip
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", "")
    client.send("\r\n".join(lines).encode())
    return await client.response()


def basic(password: str) -> str:
    return f"Authorization: Basic {b64encode(f'admin:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Authorization: Bearer {KEY}", 200),
        (f"X-Api-Key: {KEY}", 200),
        (basic(KEY), 200),
        (basic("wrong"), 401),
        ("Authorization: Bearer wrong", 401),
        ("Accept: */*", 401),
    ],
)
async def test_with_a_key_only_those_who_have_it_come_in(header: str, status: int) -> None:
    async with administration(key=KEY) as client:
        assert (await ask(client, header)).status == status


async def test_a_browser_is_told_to_ask_for_the_key() -> None:
    access = AdminAccess(page, host="0.0.0.0")
    access.set_key(KEY)
    listener = Listener(access.handle, ListenOptions())
    await listener.open()
    async with RawClient(listener.port) as client:
        client.get("/")
        head = await client.reader.readuntil(b"\r\n\r\n")
    assert b'www-authenticate: Basic realm="administration"' in head
    await listener.close()


async def test_probes_of_liveness_need_no_key() -> None:
    async with administration(key=KEY) as client:
        assert (await ask(client, path="/health")).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8081", 200),
        ("127.0.0.1", 200),
        ("[::1]:8081", 200),
        ("gateway", 200),
        ("attacker.example", 403),
        ("127.0.0.1.attacker.example:8081", 403),
        ("[", 403),
    ],
)
async def test_a_strangers_name_for_the_loopback_address_is_refused(host: str, status: int) -> None:
    async with administration() as client:
        assert (await ask(client, host=host)).status == status


async def test_any_name_will_do_where_the_listener_is_meant_for_others_or_has_a_key() -> None:
    async with administration(host="0.0.0.0") as client:
        assert (await ask(client, host="metrics.example")).status == 200
    async with administration(key=KEY) as client:
        assert (await ask(client, basic(KEY), host="metrics.example")).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Origin: http://127.0.0.1:8081",), 200),
        (("Origin: https://attacker.example",), 403),
        (("Origin: null",), 403),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), 403),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"), 403),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 200),
        (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"), 200),
    ],
)
async def test_pages_of_other_sites_cannot_use_a_browser_that_may(
    headers: tuple[str, ...], status: int
) -> None:
    async with administration(key=KEY) as client:
        assert (await ask(client, basic(KEY), *headers)).status == status


async def test_a_form_of_another_site_cannot_be_posted() -> None:
    async with administration() as client:
        headers = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Content-Length: 0")
        assert (await ask(client, *headers, method="POST")).status == 403


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a", False)],
)
def test_loopback_is_told_from_other_addresses(host: str, local: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is local
