"""Requests that two readers might take for different ones, as raw bytes: none reaches a server."""

import asyncio

import pytest

from gateway.server.options import PoolOptions
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import ok, serving

ANSWER = ok(b"{}", b"content-type: application/json")
BODY = chat()
SIZE = b"%d" % len(BODY)
HIDDEN = b"GET /v1/hidden HTTP/1.1\r\nHost: g\r\n\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
START = b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode()

REFUSED = {
    "both lengths": START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "both, the other way round": START
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    + CHUNKED,
    "two different lengths": START
    + b"Content-Length: %b\r\nContent-Length: 0\r\n\r\n%b" % (SIZE, BODY),
    "two equal lengths": START
    + b"Content-Length: %b\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, SIZE, BODY),
    "a list of lengths": START + b"Content-Length: %b, %b\r\n\r\n%b" % (SIZE, SIZE, BODY),
    "a signed length": START + b"Content-Length: +%b\r\n\r\n%b" % (SIZE, BODY),
    "a negative length": START + b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": START + b"Content-Length: 0x5\r\n\r\n" + BODY,
    "a length beyond 64 bits": START + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a space before the colon": START + b"Content-Length : %b\r\n\r\n%b" % (SIZE, BODY),
    "a folded header": START + b"X-A: b\r\n c\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "a folded coding": START + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "an unknown coding": START + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "chunked not last": START + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKED,
    "chunked twice": START + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKED,
    "two codings": START
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    + CHUNKED,
    "a coding with a control": START + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED,
    "a chunk size that is none": START + b"Transfer-Encoding: chunked\r\n\r\nZ\r\n",
    "a signed chunk size": START + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": START
    + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "a chunk longer than its size": START
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefg\r\n0\r\n\r\n",
    "a bare LF in a chunk's size": START
    + b"Transfer-Encoding: chunked\r\n\r\n%x\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a NUL in a header": START + b"X-A: b\0c\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "a bare CR in a header": START + b"X-A: b\rc\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "a bare LF in a header": START + b"X-A: b\nContent-Length: 0\r\n\r\n",
    "a name with a space": START + b"X A: b\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "a name of nothing": START + b": b\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "a header without a colon": START + b"X-A\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "two hosts": START + b"Host: h\r\nContent-Length: %b\r\n\r\n%b" % (SIZE, BODY),
    "a space in the target": b"POST /v1/chat completions HTTP/1.1\r\nHost: g\r\n\r\n",
    "a version that is none": START.replace(b"HTTP/1.1", b"HTTP/1.1x") + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(case: str) -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.send(REFUSED[case] + HIDDEN)
        received = await asyncio.wait_for(client.reader.read(), 5)
        assert received.startswith(b"HTTP/1.1 4"), received
        assert received.count(b"HTTP/1.") == 1
        assert b'"error":{' in received
        assert server.requests == []
        assert rig.in_flight == 0


@pytest.mark.parametrize(
    "path", ["/v1/../admin/servers", "/v1/chat%2fcompletions", "/v1//chat", "/v1/%2e%2e/metrics"]
)
async def test_a_path_that_could_be_read_as_another_reaches_no_server(path: str) -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.post(path, BODY)
        assert (await client.response()).status == 404
        assert server.requests == []


async def test_an_error_repeats_nothing_of_the_request() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(START + b"Authorization: Bearer sk-secret\0\r\n\r\n")
        received = await asyncio.wait_for(client.reader.read(), 5)
        assert received.startswith(b"HTTP/1.1 400")
        assert b"sk-secret" not in received


async def test_a_target_that_is_no_url_is_not_repeated() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"POST http://evil:99999999/v1?key=sk-secret HTTP/1.1\r\nHost: a\r\n\r\n")
        received = await asyncio.wait_for(client.reader.read(), 5)
        assert b"not a valid URL" in received
        assert b"sk-secret" not in received


async def test_the_answer_to_what_is_no_request_names_no_software() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"nonsense\r\n\r\n")
        received = await asyncio.wait_for(client.reader.read(), 5)
    assert b"\r\nserver:" not in received.lower()
    assert b"\r\nconnection: close\r\n" in received


@pytest.mark.parametrize(
    "header",
    [
        "X-Request-Id: a b",
        "X-Request-Id: " + "a" * 200,
        "X-Request-Id: a\tb",
        "X-Request-Id: a%0d%0ab",
    ],
)
async def test_a_request_id_that_could_break_out_of_its_line_is_replaced(header: str) -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, BODY, header)
        assert (await client.response()).headers["x-request-id"].startswith("gw-")
        assert server.requests[0].header("x-request-id") == rig.records.all[0].request_id


@pytest.mark.parametrize("model", ["a\r\nX-Evil: 1", "a\0b", "a\u2028b", "\x1b[2Jm"])
async def test_a_model_with_control_characters_is_refused(model: str) -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, chat(model=model))
        assert (await client.response()).status == 400
        assert server.requests == []


STEERING = (
    "x-gateway-inference-objective",
    "x-gateway-destination-endpoint",
    "x-llm-d-slo-ttft-ms",
    "x-slo-tpot-ms",
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-data-parallel-rank",
    "x-data-parallel-host-port",
    "x-session-token",
)


async def test_headers_that_would_steer_servers_go_no_further_unless_they_are_trusted() -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, BODY, *(f"{name}: 1" for name in STEERING))
        assert (await client.response()).status == 200
        sent = {name.lower() for name, _ in server.requests[0].headers}
        assert sent.isdisjoint(STEERING)


async def test_a_hop_by_hop_header_named_by_the_client_goes_no_further() -> None:
    server = serving(ANSWER)
    async with gateway(server, pool_options=PoolOptions()) as rig, rig.client() as client:
        client.post(CHAT, BODY, "Connection: keep-alive, X-A", "X-A: b", "TE: trailers")
        assert (await client.response()).status == 200
        assert server.requests[0].header("x-a") is None
        assert server.requests[0].header("te") is None


async def test_an_upgrade_is_not_followed_and_hides_nothing() -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, BODY, "Connection: Upgrade", "Upgrade: websocket")
        client.get("/health")
        assert (await client.response()).status in (200, 400)
        assert all(request.header("upgrade") is None for request in server.requests)


async def test_trailers_cannot_add_headers() -> None:
    server = serving(ANSWER)
    async with gateway(server) as rig, rig.client() as client:
        client.send(START + b"Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n")
        client.send(b"%x\r\n%b\r\n0\r\nX-A: b\r\n\r\n" % (len(BODY), BODY))
        assert (await client.response()).status in (200, 400)
        assert all(request.header("x-a") is None for request in server.requests)
