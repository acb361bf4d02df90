import gzip
import json
import tracemalloc
import zlib

import pytest

from gateway.server.options import FrontEndOptions
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import ok, serving

JSON = "Content-Type: application/json"
ANSWER = ok(b"{}", b"content-type: application/json")


async def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    options = FrontEndOptions(max_body_bytes=100)
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 101\r\n\r\n" % CHAT.encode())
        response = await client.response()
        assert response.status == 413
        assert response.headers["connection"] == "close"
        assert b"100 bytes" in response.body
        assert rig.servers[0].connections == 0


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    body = chat()
    options = FrontEndOptions(max_body_bytes=len(body))
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.post(CHAT, body)
        assert (await client.response()).status == 200


async def test_a_chunked_body_is_forwarded_with_its_length() -> None:
    body = chat()
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        for size in (1, 1_000):
            client.send(b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode())
            client.send(b"Transfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), size):
                piece = body[start : start + size]
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
            assert (await client.response()).status == 200
            sent = rig.servers[0].requests[-1]
            assert sent.body == body
            assert sent.header("transfer-encoding") is None


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    options = FrontEndOptions(max_body_bytes=100)
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode())
        client.send(b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + b"x" * 1_000)
        assert (await client.response()).status == 413


async def test_a_chunked_body_that_is_no_such_thing_is_a_bad_request() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode())
        client.send(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        response = await client.response()
        assert response.status == 400
        assert json.loads(response.body)["error"]["code"] == 400


async def test_a_body_that_does_not_come_is_given_up() -> None:
    options = FrontEndOptions(body_timeout_s=0.01)
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n{" % CHAT.encode())
        response = await client.response()
        assert (response.status, response.headers["connection"]) == (408, "close")


async def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    body = chat()
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(
            b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
            % (CHAT.encode(), len(body))
        )
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert (await client.response()).status == 200
        sent = rig.servers[0].requests[-1]
        assert (sent.body, sent.header("expect")) == (body, None)


async def test_expect_continue_is_refused_when_the_body_would_be() -> None:
    options = FrontEndOptions(max_body_bytes=100)
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.send(
            b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 999\r\nExpect: 100-continue\r\n\r\n"
            % CHAT.encode()
        )
        assert (await client.response()).status == 413


async def test_an_unknown_path_is_refused_before_the_body_is_asked_for() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"POST /v1/%2e HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n")
        client.send(b"Expect: 100-continue\r\n\r\n")
        assert (await client.response()).status == 404


async def test_an_old_client_is_sent_no_interim_answer() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat(), JSON, "Expect: 100-continue", version="1.0")
        assert (await client.head())[0] == 200


async def test_an_expectation_that_is_no_text_is_refused_as_others_are() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\nExpect: \xff\r\n" % CHAT.encode())
        client.send(b"Content-Length: 2\r\n\r\n{}")
        response = await client.response()
        assert response.status == 417
        assert "Expect: ÿ".encode() in response.body


async def test_other_expectations_are_refused() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat(), JSON, "Expect: miracles")
        assert (await client.response()).status == 417


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_compressed_body_is_read_and_passed_on_as_it_came(
    coding: str, compress: object
) -> None:
    body = compress(chat(model="adapter"))  # type: ignore[operator] # one of the above
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, body, JSON, f"Content-Encoding: {coding}")
        assert (await client.response()).status == 200
        sent = rig.servers[0].requests[-1]
        assert sent.body == body
        assert sent.header("content-encoding") == coding
        assert rig.records.all[-1].model == "adapter"


async def test_a_compressed_body_that_must_be_changed_goes_on_uncompressed() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, gzip.compress(chat(priority=3)), JSON, "Content-Encoding: gzip")
        assert (await client.response()).status == 200
        sent = rig.servers[0].requests[-1]
        assert json.loads(sent.body) == json.loads(chat())
        assert sent.header("content-encoding") is None


async def test_a_small_body_must_not_become_a_huge_one() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    options = FrontEndOptions(max_body_bytes=1_000_000)
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        tracemalloc.start()
        client.post(CHAT, bomb, JSON, "Content-Encoding: gzip")
        assert (await client.response()).status == 413
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5_000_000
        client.get("/health")
        assert (await client.response()).status == 200


@pytest.mark.parametrize(
    "body", [b"not gzip", *(gzip.compress(chat(), mtime=0)[:-cut] for cut in (10, 8, 1))]
)
async def test_a_body_that_is_not_compressed_as_it_says_is_a_bad_request(body: bytes) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, body, JSON, "Content-Encoding: gzip")
        assert (await client.response()).status == 400


async def test_a_coding_that_cannot_be_looked_into_is_refused_with_those_that_can() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, b"...", JSON, "Content-Encoding: br")
        response = await client.response()
        assert response.status == 415
        assert b"gzip" in response.body


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"nonsense", None), (b"[]", None), (b'{"messages":[]}', "model"), (b'{"model":""}', "model")],
)
async def test_a_body_that_names_no_model_is_a_bad_request(body: bytes, field: str | None) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        for _ in range(2):
            client.post(CHAT, body)
            response = await client.response()
            assert response.status == 400
            assert json.loads(response.body)["error"]["param"] == field
            assert response.headers["x-request-id"]
        assert rig.servers[0].connections == 0


async def test_an_upload_with_a_model_field_is_passed_on_unchanged() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nbase\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        b"\x00\xffRIFF\r\n--b--\r\n"
    )
    kind = "Content-Type: multipart/form-data; boundary=b"
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post("/v1/audio/transcriptions", body, kind)
        assert (await client.response()).status == 200
        sent = rig.servers[0].requests[-1]
        assert sent.body == body
        assert sent.header("content-type") == "multipart/form-data; boundary=b"
