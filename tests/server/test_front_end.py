import json

import pytest

from gateway.scheduling.model import LLMService, ServedModel, ServiceName, TargetModel
from gateway.server.options import FrontEndOptions
from tests.server.gateway_rig import CHAT, chat, gateway, make_policy
from tests.server.raw_server import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Peer,
    RawServer,
    chunked,
    event,
    eventually,
    ok,
    serving,
)

ANSWER = ok(b"{}", b"content-type: application/json")
SPLIT = LLMService(ServiceName("chat"), "org/chat", (TargetModel("base"),))


async def test_health_needs_no_server() -> None:
    async with gateway() as rig, rig.client() as client:
        client.get("/health")
        assert (await client.response()).status == 200


async def test_ready_needs_a_usable_server() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.get("/ready")
        assert (await client.response()).status == 200
        for backend_id in rig.backends:
            rig.backends.set_unusable(backend_id)
        client.get("/ready")
        response = await client.response()
        assert response.status == 503
        assert "retry-after" in response.headers


async def test_not_ready_while_draining_but_still_healthy() -> None:
    async with gateway(serving(ANSWER)) as rig:
        rig.front_end.drain()
        for path, status in (("/ready", 503), ("/health", 200)):
            async with rig.client() as client:
                client.get(path)
                response = await client.response()
                assert (response.status, response.headers["connection"]) == (status, "close")
                assert await client.at_end()


async def test_the_list_of_models_is_that_of_servers_and_services() -> None:
    async with gateway(serving(ANSWER), services=(SPLIT,)) as rig, rig.client() as client:
        client.get("/v1/models")
        listed = json.loads((await client.response()).body)
        assert listed["object"] == "list"
        models = {model["id"]: model for model in listed["data"]}
        assert set(models) == {"org/chat", "base", "adapter"}
        assert models["adapter"]["parent"] == "base"


async def test_the_list_of_models_does_not_fail_without_servers() -> None:
    async with gateway(services=(SPLIT,)) as rig, rig.client() as client:
        client.get("/v1/models")
        response = await client.response()
        assert response.status == 200
        assert [model["id"] for model in json.loads(response.body)["data"]] == ["org/chat"]


async def test_a_pool_for_services_only_lists_no_other_models() -> None:
    policy = make_policy(SPLIT, accept_unregistered_models=False)
    async with gateway(serving(ANSWER), policy=policy) as rig, rig.client() as client:
        client.get("/v1/models")
        assert [m["id"] for m in json.loads((await client.response()).body)["data"]] == ["org/chat"]
        client.post(CHAT, chat())
        assert (await client.response()).status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/base", 200),
        ("/v1/models/org/chat", 200),
        ("/v1/models/org%2Fchat", 200),
        ("/v1/models/nope", 404),
    ],
)
async def test_one_model_is_described_by_its_name(path: str, status: int) -> None:
    async with gateway(serving(ANSWER), services=(SPLIT,)) as rig, rig.client() as client:
        client.get(path)
        response = await client.response()
        assert response.status == status
        if status == 404:
            assert json.loads(response.body)["error"]["code"] == 404


async def test_the_length_of_the_longest_prompt_is_told() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        rig.join((ServedModel("base", None, 2_048),))
        client.get("/v1/models/base")
        assert json.loads((await client.response()).body)["max_model_len"] == 2_048


async def test_an_unknown_model_is_a_404_that_names_it() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat(model="nope"))
        response = await client.response()
        assert response.status == 404
        assert b"nope" in response.body
        assert rig.records.all[-1].status == 404


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.get(path, method="HEAD")
        head = await client.response(bodiless=True)
        client.get(path)
        response = await client.response()
        assert head.status == 200
        assert int(head.headers["content-length"]) == len(response.body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/debug/state", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models/base", 405),
        ("OPTIONS", CHAT, 405),
        ("POST", "/health", 405),
        ("POST", "/tokenize", 404),
    ],
)
async def test_everything_else_is_refused_in_the_usual_shape(
    method: str, path: str, status: int
) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        for _ in range(2):
            client.get(path, method=method)
            response = await client.response()
            assert response.status == status
            assert json.loads(response.body)["error"]["code"] == status
            assert ("allow" in response.headers) == (status == 405)


async def test_a_client_whose_base_url_lacks_v1_is_told_so() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post("/chat/completions", chat())
        response = await client.response()
        assert response.status == 404
        assert b"Base URLs of the API end in /v1." in response.body


async def test_a_body_that_nobody_reads_closes_the_connection() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: g\r\nContent-Length: 999999\r\n\r\n")
        response = await client.response()
        assert (response.status, response.headers["connection"]) == (404, "close")


async def test_a_request_to_upgrade_is_answered_as_if_it_were_none() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.get("/health", "Connection: Upgrade", "Upgrade: websocket")
        assert (await client.response()).status == 200
        client.get("/health")
        assert (await client.response()).status == 200


async def test_what_is_not_http_is_a_bad_request_in_the_usual_shape() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.send(b"GET /health HTTP/1.1\r\nbroken header\r\n\r\n")
        response = await client.response()
        assert response.status == 400
        assert json.loads(response.body)["error"]["code"] == 400
        assert await client.at_end()


@pytest.mark.interpreted
async def test_a_request_that_the_gateway_failed_is_found_in_its_log_by_its_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        monkeypatch.setattr(rig.pools, "route", lambda _: 1 / 0)
        client.post(CHAT, chat())
        response = await client.response()
        assert response.status == 500
        assert f"request {response.headers['x-request-id']} failed" in caplog.text
        assert rig.records.all[0].request_id == response.headers["x-request-id"]


# -- keep-alive and pipelining --------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            name = json.loads(request.body)["user"]
            if name % 2:
                await peer.send(STREAM_HEAD, chunked(event(str(name)), event("", "stop")))
                await peer.send(chunked(DONE), LAST_CHUNK)
            else:
                await peer.send(ok(str(name).encode()))

    async with gateway(RawServer(script)) as rig, rig.client() as client:
        for name in range(40):
            client.post(CHAT, chat(user=name, stream=bool(name % 2)))
            client.get("/health")
        for name in range(40):
            body = (await client.response()).body
            assert body == str(name).encode() or body.startswith(event(str(name)))
            assert (await client.response()).body == b'{"status":"ok"}'


async def test_a_connection_closes_when_the_client_asks_for_it() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat(), "Content-Type: application/json", "Connection: close")
        assert (await client.response()).headers["connection"] == "close"
        assert await client.at_end()


async def test_an_old_client_keeps_its_connection_only_if_it_asks_for_it() -> None:
    async with gateway(serving(ANSWER)) as rig:
        async with rig.client() as client:
            for _ in range(2):
                client.post(CHAT, chat(), "Connection: keep-alive", version="1.0")
                assert (await client.response()).headers["connection"] == "keep-alive"
        async with rig.client() as client:
            client.post(CHAT, chat(), version="1.0")
            assert (await client.response()).status == 200
            assert await client.at_end()


# -- browsers -------------------------------------------------------------------------------


async def test_browsers_of_other_origins_may_not_call_unless_named() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.get("/v1/models", "Origin: http://page")
        assert "access-control-allow-origin" not in (await client.response()).headers


@pytest.mark.parametrize("allowed", ["http://page", "*"])
async def test_browsers_of_a_named_origin_may_call(allowed: str) -> None:
    options = FrontEndOptions(cors_origins=frozenset({allowed}))
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.get(
            CHAT,
            "Origin: http://page",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization, content-type",
            method="OPTIONS",
        )
        preflight = await client.response()
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "http://page"
        assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
        lines = ("Content-Type: application/json", "Origin: http://page")
        for body in (chat(), chat(model="nope")):
            client.post(CHAT, body, *lines)
            headers = (await client.response()).headers
            assert headers["access-control-allow-origin"] == "http://page"


async def test_browsers_of_an_origin_that_is_not_named_are_told_nothing() -> None:
    options = FrontEndOptions(cors_origins=frozenset({"http://page"}))
    async with gateway(serving(ANSWER), options=options) as rig, rig.client() as client:
        client.get(
            CHAT,
            "Origin: http://other",
            "Access-Control-Request-Method: POST",
            method="OPTIONS",
        )
        assert "access-control-allow-origin" not in (await client.response()).headers


@pytest.mark.parametrize(("origins", "told"), [({"http://page"}, "Origin"), (set(), "origin")])
async def test_that_answers_differ_by_origin_is_told_once(origins: set[str], told: str) -> None:
    """Servers say so too; the client of these tests takes no header twice."""
    options = FrontEndOptions(cors_origins=frozenset(origins))
    server = serving(ok(b"{}", b"content-type: application/json", b"vary: origin"))
    async with gateway(server, options=options) as rig, rig.client() as client:
        client.post(CHAT, chat(), "Content-Type: application/json", "Origin: http://page")
        assert (await client.response()).headers["vary"] == told


async def test_what_else_answers_differ_by_is_passed_on() -> None:
    server = serving(ok(b"{}", b"content-type: application/json", b"vary: Accept-Language"))
    async with gateway(server) as rig, rig.client() as client:
        client.post(CHAT, chat())
        assert (await client.response()).headers["vary"] == "Accept-Language"


async def test_the_requests_in_flight_are_counted() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with gateway(RawServer(script)) as rig:
        async with rig.client() as client:
            client.post(CHAT, chat())
            await eventually(lambda: rig.front_end.in_flight == 1)
            assert not rig.front_end.idle.is_set()
        await eventually(lambda: rig.front_end.in_flight == 0)
        assert rig.front_end.idle.is_set()
