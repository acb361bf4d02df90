import json

import pytest

from gateway.scheduling.model import LLMService, ServiceName, TargetModel
from gateway.server.options import PoolOptions
from gateway.server.request_forwarding import is_proxied_path
from gateway.wire.http_headers import CredentialPolicy, ForwardingPolicy
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import DONE, LAST_CHUNK, STREAM_HEAD, chunked, event, ok, serving

JSON = "Content-Type: application/json"
ANSWER = ok(b'{"model":"base","text":"base"}', b"content-type: application/json")


def service(name: str = "chat", **fields: object) -> LLMService:
    return LLMService(name=ServiceName(name), model=name, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../metrics",
        "/v1/./x",
        "/v1//x",
        "/v1/x/",
        "/v1/%6coad_lora_adapter",
        "/v1/x;y",
        "/v1",
        "/v1/x\n",
    ],
)
def test_paths_that_a_server_might_read_otherwise_are_not_proxied(path: str) -> None:
    assert not is_proxied_path(path)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/audio/transcriptions", "/v1/a-b_c.d"])
def test_plain_paths_are_proxied(path: str) -> None:
    assert is_proxied_path(path)


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
async def test_adapters_are_never_loaded_through_the_gateway(path: str) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(path, chat(lora_name="x"))
        response = await client.response()
        assert response.status == 403
        assert b"Adapters" in response.body
        assert rig.servers[0].connections == 0


async def test_any_post_that_names_a_model_goes_to_the_same_path_with_its_query() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post("/v1/embeddings?a=%20b&c", body := chat(input="x"))
        assert (await client.response()).status == 200
        sent = rig.servers[0].requests[-1]
        assert sent.line == "POST /v1/embeddings?a=%20b&c HTTP/1.1"
        assert sent.body == body


async def test_a_target_in_absolute_form_is_the_same_request() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(f"http://elsewhere{CHAT}", chat())
        assert (await client.response()).status == 200
        assert rig.servers[0].requests[-1].line == f"POST {CHAT} HTTP/1.1"


async def test_the_clients_headers_go_on_without_those_of_one_hop() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(
            CHAT,
            chat(),
            JSON,
            "Authorization: Bearer me",
            "traceparent: 00-1-2-01",
            "X-Request-Id: mine",
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Accept-Encoding: gzip",
            "Origin: http://page",
        )
        response = await client.response()
        assert response.headers["x-request-id"] == "mine"
        sent = rig.servers[0].requests[-1]
        assert sent.header("authorization") == "Bearer me"
        assert sent.header("traceparent") == "00-1-2-01"
        assert sent.header("x-request-id") == "mine"
        assert sent.header("host") == f"127.0.0.1:{rig.servers[0].port}"
        for dropped in ("connection", "x-hop", "accept-encoding", "origin"):
            assert sent.header(dropped) is None


async def test_a_request_without_an_id_gets_one_that_the_server_sees_too() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat())
        made = (await client.response()).headers["x-request-id"]
        assert made
        assert rig.servers[0].requests[-1].header("x-request-id") == made


async def test_two_requests_with_one_client_chosen_id_do_not_disturb_each_other() -> None:
    async with (
        gateway(serving(ANSWER)) as rig,
        rig.client() as first,
        rig.client() as second,
    ):
        for client in (first, second):
            client.post(CHAT, chat(), JSON, "X-Request-Id: same")
        for client in (first, second):
            assert (await client.response()).status == 200


async def test_credentials_are_replaced_where_configured() -> None:
    forwarding = ForwardingPolicy(
        credentials=CredentialPolicy.REPLACE, authorization="Bearer pool-key"
    )
    options = PoolOptions(forwarding=forwarding)
    async with gateway(serving(ANSWER), pool_options=options) as rig, rig.client() as client:
        client.post(CHAT, chat(), JSON, "Authorization: Bearer me")
        assert (await client.response()).status == 200
        assert rig.servers[0].requests[-1].header("authorization") == "Bearer pool-key"


async def test_the_clients_priority_is_dropped() -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat(priority=-5))
        assert (await client.response()).status == 200
        assert "priority" not in json.loads(rig.servers[0].requests[-1].body)


async def test_servers_that_use_priorities_get_the_services_with_the_sign_turned() -> None:
    options = PoolOptions(servers_use_priority=True)
    services = (service("base", priority=2),)
    async with (
        gateway(serving(ANSWER), services=services, pool_options=options) as rig,
        rig.client() as client,
    ):
        client.post(CHAT, chat(priority=-5))
        assert (await client.response()).status == 200
        assert json.loads(rig.servers[0].requests[-1].body)["priority"] == -2
        client.post("/v1/embeddings", chat(input="x"))
        assert (await client.response()).status == 200
        assert "priority" not in json.loads(rig.servers[0].requests[-1].body)


async def test_a_trusted_clients_priority_is_kept() -> None:
    options = PoolOptions(servers_use_priority=True, trusts_priority=True)
    async with gateway(serving(ANSWER), pool_options=options) as rig, rig.client() as client:
        client.post(CHAT, body := chat(priority=-5))
        assert (await client.response()).status == 200
        assert rig.servers[0].requests[-1].body == body


async def test_a_split_sends_the_target_and_shows_the_clients_model() -> None:
    services = (service(targets=(TargetModel("base"),)),)
    async with gateway(serving(ANSWER), services=services) as rig, rig.client() as client:
        client.post(CHAT, chat(model="chat"))
        response = await client.response()
        assert json.loads(rig.servers[0].requests[-1].body)["model"] == "base"
        assert json.loads(response.body) == {"model": "chat", "text": "base"}


async def test_a_split_shows_the_clients_model_in_every_event_of_a_stream() -> None:
    events = [event("base"), event("", "stop")]
    stream = b"".join(events) + DONE
    pieces = [stream[start : start + 10] for start in range(0, len(stream), 10)]
    services = (service(targets=(TargetModel("base"),)),)
    async with (
        gateway(serving(STREAM_HEAD + chunked(*pieces) + LAST_CHUNK), services=services) as rig,
        rig.client() as client,
    ):
        client.post(CHAT, chat(model="chat", stream=True))
        expected = stream.replace(b'"model":"base"', b'"model":"chat"')
        assert (await client.response()).body == expected


async def test_a_split_leaves_errors_as_they_are() -> None:
    error = b'{"error":{"message":"no base"},"model":"base"}'
    answer = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    services = (service(targets=(TargetModel("base"),)),)
    async with (
        gateway(serving(answer % (len(error), error)), services=services) as rig,
        rig.client() as client,
    ):
        client.post(CHAT, chat(model="chat"))
        assert (await client.response()).body == error


USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'


async def test_injected_usage_is_asked_for_counted_and_taken_out_again() -> None:
    options = PoolOptions(inject_usage=frozenset({ServiceName("base")}))
    answer = STREAM_HEAD + chunked(event("", "stop"), USAGE, DONE) + LAST_CHUNK
    async with (
        gateway(serving(answer), services=(service("base"),), pool_options=options) as rig,
        rig.client() as client,
    ):
        client.post(CHAT, chat(stream=True))
        assert (await client.response()).body == event("", "stop") + DONE
        sent = json.loads(rig.servers[0].requests[-1].body)
        assert sent["stream_options"] == {"include_usage": True}


async def test_usage_that_the_client_asked_for_is_not_taken_out() -> None:
    options = PoolOptions(inject_usage=frozenset({ServiceName("base")}))
    answer = STREAM_HEAD + chunked(event("", "stop"), USAGE, DONE) + LAST_CHUNK
    async with (
        gateway(serving(answer), services=(service("base"),), pool_options=options) as rig,
        rig.client() as client,
    ):
        client.post(CHAT, body := chat(stream=True, stream_options={"include_usage": True}))
        assert (await client.response()).body == event("", "stop") + USAGE + DONE
        assert rig.servers[0].requests[-1].body == body


@pytest.mark.parametrize(
    "lines",
    [
        [JSON, "X-SLO-TTFT-MS: soon"],
        [JSON, "X-Gateway-Inference-Fairness-Id: a b"],
    ],
)
async def test_steering_headers_with_bad_values_are_refused(lines: list[str]) -> None:
    async with gateway(serving(ANSWER)) as rig, rig.client() as client:
        client.post(CHAT, chat(), *lines)
        assert (await client.response()).status == 400
        assert rig.in_flight == 0
