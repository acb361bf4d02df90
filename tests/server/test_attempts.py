"""Which server answers, and what the client gets when none does."""

import asyncio
import json

import pytest

from gateway.scheduling.events import BackendLeft, DispatchFailed, FailureKind
from gateway.scheduling.model import BackendId
from gateway.scheduling.policy import QueuePolicy, RetryPolicy
from gateway.server.options import BackendTimeouts, FrontEndOptions
from tests.server.gateway_rig import CHAT, Rig, chat, crowded_gateway, gateway, make_policy
from tests.server.raw_client import RawResponse
from tests.server.raw_server import (
    Peer,
    RawServer,
    answering,
    eventually,
    ok,
    serving,
)

ANSWER = ok(b'{"answer":1}', b"content-type: application/json")
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
SHORT = BackendTimeouts(first_byte_s=0.1, sweep_s=0.005)
"""Short enough to wait for, long enough for a server that does answer on a busy machine."""


async def hang_up(peer: Peer) -> None:
    await peer.request()


async def stay_silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def send_garbage(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"SSH-2.0\r\n")


async def break_down(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops")


def error_of(response: RawResponse) -> dict[str, object]:
    error = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error, dict)
    return error


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (hang_up, FailureKind.RESET),
        (stay_silent, FailureKind.TIMEOUT),
        (send_garbage, FailureKind.PROTOCOL),
        (break_down, FailureKind.SERVER_ERROR),
    ],
)
async def test_a_server_that_fails_before_its_first_byte_is_replaced_by_another(
    script: object, kind: FailureKind
) -> None:
    broken = RawServer(script)  # type: ignore[arg-type] # one of the above
    timeouts = SHORT if script is stay_silent else BackendTimeouts()
    async with gateway(broken, serving(ANSWER), timeouts=timeouts) as rig, rig.client() as client:
        for _ in range(4):
            client.post(CHAT, chat())
            response = await client.response()
            assert (response.status, response.body) == (200, b'{"answer":1}')
        assert {failed.kind for failed in rig.events.of_type(DispatchFailed)} == {kind}
        assert rig.in_flight == 0


async def test_time_lost_on_servers_that_failed_is_not_counted_as_overhead() -> None:
    servers = RawServer(stay_silent), serving(ANSWER)
    async with gateway(*servers, timeouts=SHORT) as rig, rig.client() as client:
        for _ in range(4):
            client.post(CHAT, chat())
            await client.response()
        retried = [record for record in rig.records.all if record.attempts == 2]
        assert retried
        for record in retried:
            assert record.overhead_s is not None
            assert record.overhead_s < 0.1 < record.e2e_s


async def test_a_server_that_refuses_connections_is_replaced_and_suspected() -> None:
    async with gateway(RawServer(hang_up), serving(ANSWER)) as rig, rig.client() as client:
        gone = rig.clients[BackendId("s0")]
        await _stop_listening(rig)
        for _ in range(4):
            client.post(CHAT, chat())
            assert (await client.response()).status == 200
        kinds = {failed.kind for failed in rig.events.of_type(DispatchFailed)}
        assert kinds == {FailureKind.CONNECT}
        assert gone.open_connections == 0
        assert rig.backends.suspicion(BackendId("s0")).is_set()
        assert not rig.backends.suspicion(BackendId("s1")).is_set()


async def _stop_listening(rig: Rig) -> None:
    """Stop the first server, as a crash would."""
    await rig.servers[0].stop()


@pytest.mark.parametrize(
    ("script", "status"),
    [(stay_silent, 504), (send_garbage, 502)],
)
async def test_when_every_server_fails_the_client_is_told_how(script: object, status: int) -> None:
    broken = RawServer(script)  # type: ignore[arg-type] # one of the above
    timeouts = SHORT if script is stay_silent else BackendTimeouts()
    async with gateway(broken, timeouts=timeouts) as rig, rig.client() as client:
        for _ in range(2):
            client.post(CHAT, chat())
            response = await client.response()
            assert response.status == status
            assert error_of(response)["code"] == status
            assert response.headers["retry-after"] == "1"
            assert response.headers["x-request-id"]
        assert rig.in_flight == 0


async def test_a_request_whose_only_server_vanished_is_answered_when_it_is_back() -> None:
    server = RawServer(hang_up)
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, chat())
        await eventually(lambda: rig.driver.snapshot().queued_requests)
        server.script = answering(server, ANSWER)
        rig.driver.deliver(BackendLeft(BackendId("s0")))
        rig.join()
        assert (await client.response()).status == 200
        assert rig.records.all[-1].attempts == 2


async def test_a_request_whose_only_server_vanished_waits_no_longer_than_any() -> None:
    policy = make_policy(queue=QueuePolicy(timeout_s=0.02))
    async with gateway(RawServer(hang_up), policy=policy) as rig, rig.client() as client:
        client.post(CHAT, chat())
        response = await client.response()
        assert response.status == 503
        assert "retry-after" in response.headers
        assert rig.in_flight == 0


async def test_what_blames_the_request_is_neither_retried_nor_held_against_the_server() -> None:
    blames = (b"400 Bad", b"404 No", b"408 Slow", b"422 Hm", b"429 Busy", b"499 Odd", b"501 Never")
    for status in blames:
        answer = b"HTTP/1.1 %b\r\nretry-after: 77\r\ncontent-length: 4\r\n\r\nwhy?" % status
        async with gateway(serving(answer), serving(answer)) as rig, rig.client() as client:
            client.post(CHAT, chat())
            response = await client.response()
            assert (response.status, response.body) == (int(status[:3]), b"why?")
            assert response.headers["retry-after"] == "77"
            assert sum(len(server.requests) for server in rig.servers) == 1
            assert not rig.events.of_type(DispatchFailed)


async def test_retries_are_bounded_over_all_traffic() -> None:
    policy = make_policy(retry=RetryPolicy(budget_burst=3.0, budget_ratio=0.0))
    servers = [serving(BUSY), serving(BUSY), serving(BUSY)]
    async with gateway(*servers, policy=policy) as rig, rig.client() as client:
        for _ in range(10):
            client.post(CHAT, chat())
            assert (await client.response()).status == 503
        assert sum(len(server.requests) for server in servers) == 10 + 3
        for record in rig.records.all:
            assert record.attempts <= len(servers)


async def test_no_server_is_tried_twice_for_one_request() -> None:
    policy = make_policy(retry=RetryPolicy(max_attempts=9, budget_burst=1_000.0))
    servers = [serving(BUSY), serving(BUSY), serving(BUSY)]
    async with gateway(*servers, policy=policy) as rig, rig.client() as client:
        client.post(CHAT, chat())
        assert (await client.response()).status == 503
        assert [len(server.requests) for server in servers] == [1, 1, 1]
        assert rig.in_flight == 0


async def test_the_servers_own_error_is_what_the_client_gets_in_the_end() -> None:
    async with (
        gateway(RawServer(break_down), RawServer(break_down)) as rig,
        rig.client() as client,
    ):
        client.post(CHAT, chat())
        response = await client.response()
        assert (response.status, response.body) == (500, b"oops")
        assert "retry-after" in response.headers
        assert len(rig.events.of_type(DispatchFailed)) == 2
        assert rig.in_flight == 0


async def test_an_error_that_was_cut_off_is_not_what_the_client_gets() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\nhalf")

    policy = make_policy(queue=QueuePolicy(timeout_s=0.02))
    async with gateway(RawServer(script), policy=policy) as rig, rig.client() as client:
        client.post(CHAT, chat())
        response = await client.response()
        assert response.status == 503
        error_of(response)


async def test_a_servers_own_retry_after_is_kept() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nretry-after: 77\r\ncontent-length: 0\r\n\r\n"
    async with gateway(serving(busy)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        response = await client.response()
        assert (response.status, response.headers["retry-after"]) == (503, "77")


async def test_a_request_over_the_queues_limit_gets_429_with_retry_after() -> None:
    queue = QueuePolicy(max_requests=0)
    async with crowded_gateway(RawServer(stay_silent), queue=queue) as (_, client):
        client.post(CHAT, chat())
        response = await client.response()
        assert response.status == 429
        assert "retry-after" in response.headers
        error_of(response)


async def test_a_request_that_waits_too_long_gets_503() -> None:
    queue = QueuePolicy(timeout_s=0.01)
    async with crowded_gateway(RawServer(stay_silent), queue=queue) as (_, client):
        client.post(CHAT, chat())
        assert (await client.response()).status == 503


async def test_a_request_waits_for_a_place_and_is_then_answered() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            await peer.send(ANSWER)

    server = RawServer(script)
    async with (
        gateway(server, policy=make_policy(slots=1)) as rig,
        rig.client() as first,
        rig.client() as second,
    ):
        first.post(CHAT, chat())
        await eventually(lambda: rig.in_flight)
        second.post(CHAT, chat())
        await eventually(lambda: rig.driver.snapshot().queued_requests == 1)
        go.set()
        assert (await first.response()).status == 200
        assert (await second.response()).status == 200
        assert server.connections == 1


async def test_debug_headers_tell_server_queue_and_forecast() -> None:
    options = FrontEndOptions(debug_headers=True)
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.post(CHAT, chat())
        headers = (await client.response()).headers
        assert headers["x-gateway-server"] == "s0"
        assert headers["x-gateway-attempt"] == "1"
        assert float(headers["x-gateway-queue-ms"]) >= 0
        assert float(headers["x-gateway-forecast-ttft-ms"]) > 0
        assert float(headers["x-gateway-forecast-tpot-ms"]) > 0


async def test_without_the_switch_only_the_overhead_is_told() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        headers = (await client.response()).headers
        told = {name for name in headers if name.startswith("x-gateway-")}
        assert told == {"x-gateway-overhead-ms"}
        assert 0 < float(headers["x-gateway-overhead-ms"]) < 1_000
