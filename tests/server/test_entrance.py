"""Bounds on requests in flight and on the memory of their bodies."""

import asyncio
import gzip

import pytest

from gateway.server.entrance import EntranceLimits, _address
from gateway.telemetry.request_record import Outcome
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import Peer, RawServer, eventually, ok, serving

ANSWER = ok(b"{}", b"content-type: application/json")


def holding(go: asyncio.Event) -> RawServer:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(ANSWER)

    return RawServer(script)


@pytest.mark.parametrize(
    ("limits", "status", "reason"),
    [
        (EntranceLimits(requests=1), 503, "gateway_in_flight"),
        (EntranceLimits(requests_per_client=1), 429, "client_in_flight"),
    ],
)
async def test_one_request_too_many_is_refused_until_another_has_ended(
    limits: EntranceLimits, status: int, reason: str
) -> None:
    go = asyncio.Event()
    async with gateway(holding(go), limits=limits) as rig, rig.client() as first:
        first.post(CHAT, chat())
        await eventually(lambda: rig.entrance.requests)
        async with rig.client() as second:
            second.post(CHAT, chat())
            refused = await second.response()
            assert refused.status == status
            assert f'"type":"{reason}"'.encode() in refused.body
            assert int(refused.headers["retry-after"]) >= 1
            assert rig.records.all[-1].outcome is Outcome.REFUSED
            go.set()
            assert (await first.response()).status == 200
            second.post(CHAT, chat())
            assert (await second.response()).status == 200
        assert rig.entrance.requests == 0
        assert rig.entrance._by_client == {}


async def test_a_client_that_leaves_is_counted_out() -> None:
    limits = EntranceLimits(requests_per_client=1)
    async with gateway(holding(asyncio.Event()), limits=limits) as rig:
        async with rig.client() as client:
            client.post(CHAT, chat())
            await eventually(lambda: rig.entrance.requests)
        await eventually(lambda: not rig.entrance.requests)
        assert rig.entrance.body_bytes == 0


@pytest.mark.parametrize("framing", ["whole", "later", "chunked", "compressed"])
async def test_bodies_that_take_too_much_memory_together_are_refused(framing: str) -> None:
    limits = EntranceLimits(body_bytes=2_000)
    async with gateway(serving(ANSWER), limits=limits) as rig, rig.client() as client:
        body = chat(pad="a" * 3_000)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\n"
        match framing:
            case "whole":
                client.post(CHAT, body)
            case "later":
                client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
                await asyncio.sleep(0.002)
                client.send(body)
            case "chunked":
                client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
                client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            case _:
                client.post(CHAT, gzip.compress(body), "Content-Encoding: gzip")
        refused = await client.response()
        assert refused.status == 503
        assert b'"type":"body_memory"' in refused.body
        await eventually(lambda: not rig.entrance.requests)
        assert rig.entrance.body_bytes == 0


async def test_a_body_of_64_mib_is_refused_before_it_is_read() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        size = (64 << 20) + 1
        client.send(f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: {size}\r\n\r\n".encode())
        refused = await client.response()
        assert refused.status == 413
        assert refused.headers["connection"] == "close"
        assert rig.entrance.body_bytes == 0
        assert rig.records.all[-1].reason == "body_too_large"


@pytest.mark.parametrize(
    ("remote", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        (None, "unknown"),
    ],
)
def test_an_address_stands_for_one_subscriber(remote: str | None, client: str) -> None:
    assert _address(remote) == client
