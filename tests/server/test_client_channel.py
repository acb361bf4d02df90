"""How responses are framed for the client."""

import pytest

from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunked,
    event,
    serving,
)


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection() -> None:
    answer = STREAM_HEAD + chunked(event("a"), event("", "stop"), DONE) + LAST_CHUNK
    async with gateway(serving(answer)) as rig, rig.client() as client:
        client.post(CHAT, chat(stream=True), version="1.0")
        response = await client.response()
        assert "transfer-encoding" not in response.headers
        assert response.body == event("a") + event("", "stop") + DONE


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_status_without_body_passes_without_body(status: bytes) -> None:
    async with (
        gateway(serving(b"HTTP/1.1 %b\r\nx: y\r\n\r\n" % status)) as rig,
        rig.client() as client,
    ):
        for _ in range(2):
            client.post(CHAT, chat())
            response = await client.response()
            assert (response.status, response.headers["x"]) == (int(status[:3]), "y")
            assert "content-length" not in response.headers
            assert "transfer-encoding" not in response.headers
