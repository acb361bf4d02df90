"""The switches of /sim/, over real sockets."""

import asyncio
import json
from dataclasses import replace

import pytest

from tests.simulator.conftest import RECORDED, StartServer
from tests.simulator.http_client import LiveServer, chat_body, post_bytes, read_to_end, recording


async def _first_bytes(reader: asyncio.StreamReader, count: int) -> bytes:
    data = b""
    async with asyncio.timeout(5.0):
        while data.count(b"data: ") < count:
            data += await reader.read(65536)
    return data


def _long_stream() -> bytes:
    return post_bytes("/v1/chat/completions", chat_body(max_tokens=1500, stream=True))


async def test_the_engine_dies_under_a_stream_as_recorded(server: LiveServer) -> None:
    real = recording("kill9_engine_midstream").chunks
    async with server.connection(_long_stream()) as (reader, _):
        await _first_bytes(reader, 3)
        await server.post("/sim/error")
        rest = await asyncio.wait_for(reader.read(), 5.0)
    for chunk in real[-2:]:
        assert chunk in rest
    assert b'finish_reason":"length' not in rest
    assert server.in_engine() == 0


async def test_the_engine_dies_under_a_whole_answer_as_a_500(server: LiveServer) -> None:
    async with server.connection(post_bytes("/v1/completions", {"prompt": "x", "max_tokens": 999})):
        await server.until(lambda: server.in_engine() == 1)
        task = asyncio.create_task(server.completion(max_tokens=999))
        await server.until(lambda: server.in_engine() == 2)
        await server.post("/sim/error")
        answer = await task
    assert answer.status == 500
    assert answer.json()["error"]["type"] == "InternalServerError"


async def test_a_reset_cuts_all_streams_without_a_word(server: LiveServer) -> None:
    async with server.connection(_long_stream()) as (reader, _):
        await _first_bytes(reader, 3)
        await server.post("/sim/reset")
        with pytest.raises(ConnectionResetError):
            await read_to_end(reader)
    await server.until(lambda: server.in_engine() == 0)


@pytest.mark.parametrize("times", [1, 2])
async def test_the_next_streams_are_cut_after_so_many_tokens(
    server: LiveServer, times: int
) -> None:
    await server.post("/sim/cut", {"how": "error", "after_tokens": 4, "times": times})
    for stream in range(times + 1):
        events = (await server.chat(max_tokens=50, stream=True)).events()
        contents = [
            e for e in events[:-1] if e.get("choices") and e["choices"][0]["delta"]["content"]
        ]
        if stream < times:
            assert "error" in events[-2]
            assert 4 <= len(contents) < 50
        else:
            assert len(contents) == 50


async def test_a_stream_is_reset_after_so_many_tokens(server: LiveServer) -> None:
    await server.post("/sim/cut", {"how": "reset", "after_tokens": 2})
    async with server.connection(_long_stream()) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await read_to_end(reader)
    await server.until(lambda: server.in_engine() == 0)


async def test_refusing_answers_503_until_it_is_switched_off(server: LiveServer) -> None:
    await server.post("/sim/switches", {"refuse": True})
    assert [(await server.chat(stream=s, max_tokens=1)).status for s in (True, False)] == [503, 503]
    await server.post("/sim/switches", {"refuse": False})
    assert (await server.chat(max_tokens=1)).status == 200


async def test_a_full_queue_can_show_as_an_error_event_inside_a_200_stream(
    server: LiveServer,
) -> None:
    await server.post("/sim/switches", {"queue_full": "event"})
    real = recording("burst_over_queue_limit_5")
    ours = await server.chat(stream=True)
    assert (ours.status, ours.chunks) == (200, real.chunks)
    assert (await server.chat()).status == 503
    await server.post("/sim/switches", {"queue_full": "status"})
    assert (await server.chat(stream=True)).status == 503
    await server.post("/sim/switches", {"queue_full": None})
    assert (await server.chat(max_tokens=1)).status == 200


async def test_a_frozen_server_holds_its_streams_until_it_thaws(server: LiveServer) -> None:
    async with server.connection(_long_stream()) as (reader, _):
        await _first_bytes(reader, 3)
        await server.post("/sim/freeze")
        steps = (await server.get("/sim/state")).json()["engine"]["steps"]
        await asyncio.sleep(0.005)
        assert (await server.get("/sim/state")).json()["engine"]["steps"] == steps
        assert (await server.get("/health")).status == 200
        await server.post("/sim/thaw")
        await server.until(lambda: server.server.vllm.live.engine.stats.steps > steps)


async def test_a_speed_change_takes_effect_at_run_time(start_server: StartServer) -> None:
    server = await start_server(replace(RECORDED, time_scale=1.0))
    await server.post("/sim/speed", {"factor": 100.0})
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await server.chat(max_tokens=100, ignore_eos=True)
    assert loop.time() - began_at < 0.3  # at speed 1: 100 steps of 7 ms


async def test_garbage_metrics_and_bad_health_are_switched_on_and_off(server: LiveServer) -> None:
    await server.post("/sim/switches", {"garbage_metrics": True, "unhealthy": True})
    assert b"num_requests_waiting" not in (await server.get("/metrics")).body
    assert (await server.get("/health")).status == 503
    await server.post("/sim/switches", {"garbage_metrics": False, "unhealthy": False})
    assert b"num_requests_waiting" in (await server.get("/metrics")).body
    assert (await server.get("/health")).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sim/speed", {"factor": 0}),
        ("/sim/speed", {"factor": "fast"}),
        ("/sim/cut", {"how": "gently", "after_tokens": 1}),
        ("/sim/switches", {"refuse": 3}),
        ("/sim/switches", {"unknown": True}),
    ],
)
async def test_a_wrong_switch_is_a_400(server: LiveServer, path: str, body: object) -> None:
    assert (await server.post(path, body)).status == 400


async def test_stopping_cuts_streams_with_an_error_event_and_refuses_connections(
    server: LiveServer,
) -> None:
    async with server.connection(_long_stream()) as (reader, _):
        data = await _first_bytes(reader, 3)
        await server.server.stop()
        data += await asyncio.wait_for(reader.read(), 5.0)
    assert recording("sigterm_midstream_chat").chunks[-2] in data
    with pytest.raises(ConnectionRefusedError):
        await server.get("/health")


async def test_the_state_shows_what_is_in_flight(server: LiveServer) -> None:
    raw = post_bytes("/v1/chat/completions", chat_body(model="a", max_tokens=1500, stream=True))
    async with server.connection(raw) as (reader, _):
        await _first_bytes(reader, 2)
        state = json.loads((await server.get("/sim/state")).body)
        load = (await server.get("/load")).json()
    assert (state["running"], state["answers"], state["running_adapters"]) == (1, 1, ["a"])
    assert load == {"server_load": 1}
