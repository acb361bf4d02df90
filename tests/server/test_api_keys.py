from hashlib import sha256

import pytest

from gateway.scheduling.events import BackendLeft
from gateway.scheduling.model import BackendId, LLMService, ServiceName
from gateway.scheduling.policy import QueuePolicy
from gateway.server.api_keys import AccessControl
from gateway.server.request_body import Refused
from gateway.telemetry.request_record import Outcome
from gateway.wire.credentials import KeyPolicy
from tests.server.gateway_rig import CHAT, Rig, chat, gateway, make_policy
from tests.server.raw_client import RawResponse
from tests.server.raw_server import ok, serving

ANSWER = ok(
    b'{"usage":{"prompt_tokens":30,"completion_tokens":20},"choices":[]}',
    b"content-type: application/json",
)
SERVICES = (LLMService(name=ServiceName("one"), model="base"),
            LLMService(name=ServiceName("two"), model="adapter"))  # fmt: skip


def key(
    name: str = "team",
    *secrets: str,
    services: frozenset[ServiceName] | None = None,
    requests: int | None = None,
    tokens: int | None = None,
) -> KeyPolicy:
    digests = tuple(sha256(secret.encode()).digest() for secret in secrets or ("sk-team",))
    return KeyPolicy(
        name=name,
        digests=digests,
        services=services,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
    )


async def ask(rig: Rig, *headers: str, body: bytes | None = None) -> RawResponse:
    async with rig.client() as client:
        client.post(CHAT, chat() if body is None else body, *headers)
        return await client.response()


async def get(rig: Rig, path: str, *headers: str) -> RawResponse:
    async with rig.client() as client:
        client.get(path, *headers)
        return await client.response()


BEARER = "Authorization: Bearer sk-team"


async def test_without_keys_everybody_is_let_in() -> None:
    async with gateway(serving(ANSWER)) as rig:
        assert (await ask(rig)).status == 200


@pytest.mark.parametrize(
    "headers", [(), ("Authorization: Bearer sk-other",), ("Authorization: Bearer sk-tea",)]
)
async def test_without_a_known_key_there_is_a_401_and_no_server_is_asked(
    headers: tuple[str, ...],
) -> None:
    server = serving(ANSWER)
    async with gateway(server, keys=[key()]) as rig:
        answer = await ask(rig, *headers)
        assert answer.status == 401
        assert b'"type":"AuthenticationError"' in answer.body
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-should-retry"] == "false"
        assert server.connections == 0
        (record,) = rig.records.all
        assert (record.outcome, record.reason) == (Outcome.CLIENT_ERROR, "unauthorized")


async def test_a_request_without_a_key_is_refused_before_its_body_is_read() -> None:
    async with gateway(serving(ANSWER), keys=[key()]) as rig, rig.client() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: g\r\n" % CHAT.encode())
        client.send(b"Content-Length: 1000000\r\n\r\n")
        answer = await client.response()
        assert answer.status == 401
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("header", [BEARER, "x-api-key: sk-team", "api-key: sk-team"])
async def test_a_known_key_lets_in_and_is_named_in_the_record(header: str) -> None:
    server = serving(ANSWER)
    async with gateway(server, keys=[key()]) as rig:
        assert (await ask(rig, header)).status == 200
        (record,) = rig.records.all
        assert record.key == "team"


async def test_no_key_at_all_lets_nobody_in() -> None:
    async with gateway(serving(ANSWER), keys=[]) as rig:
        assert (await ask(rig, BEARER)).status == 401


async def test_a_key_may_use_its_services_only_and_cannot_tell_the_others_from_none() -> None:
    keys = [key(services=frozenset({ServiceName("one")}))]
    async with gateway(serving(ANSWER), services=SERVICES, keys=keys) as rig:
        assert (await ask(rig, BEARER)).status == 200
        other = await ask(rig, BEARER, body=chat(model="adapter"))
        absent = await ask(rig, BEARER, body=chat(model="absents"))
        assert other.status == absent.status == 404
        assert other.body.replace(b"adapter", b"absents") == absent.body


async def test_the_list_of_models_shows_what_the_key_may_use() -> None:
    keys = [key(services=frozenset({ServiceName("one")}))]
    async with gateway(serving(ANSWER), services=SERVICES, keys=keys) as rig:
        listed = (await get(rig, "/v1/models", BEARER)).body
        assert b'"id":"base"' in listed
        assert b"adapter" not in listed
        assert (await get(rig, "/v1/models/base", BEARER)).status == 200
        assert (await get(rig, "/v1/models/adapter", BEARER)).status == 404
        assert (await get(rig, "/v1/models")).status == 401


async def test_probes_need_no_key() -> None:
    async with gateway(serving(ANSWER), keys=[key()]) as rig:
        assert (await get(rig, "/health")).status == 200
        assert (await get(rig, "/ready")).status == 200


async def test_requests_per_minute_are_told_and_kept_to() -> None:
    async with gateway(serving(ANSWER), keys=[key(requests=2)]) as rig:
        first = await ask(rig, BEARER)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"].endswith("s")
        assert (await ask(rig, BEARER)).status == 200
        refused = await ask(rig, BEARER)
        assert refused.status == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert b'"type":"key_requests"' in refused.body
        assert rig.records.all[-1].outcome is Outcome.REFUSED


async def test_tokens_are_counted_as_the_server_counted_them() -> None:
    async with gateway(serving(ANSWER), keys=[key(tokens=1_000)]) as rig:
        first = await ask(rig, BEARER, body=chat(max_tokens=900))
        assert int(first.headers["x-ratelimit-remaining-tokens"]) <= 100
        second = await ask(rig, BEARER)
        assert int(second.headers["x-ratelimit-remaining-tokens"]) >= 945


async def test_of_an_answer_that_tells_no_usage_what_was_set_aside_counts() -> None:
    silent = ok(b"{}", b"content-type: application/json")
    async with gateway(serving(silent), keys=[key(tokens=1_000)]) as rig:
        await ask(rig, BEARER, body=chat(max_tokens=900))
        second = await ask(rig, BEARER, body=chat(max_tokens=1))
        assert int(second.headers["x-ratelimit-remaining-tokens"]) <= 100


async def test_a_key_without_enough_tokens_left_waits() -> None:
    async with gateway(serving(ANSWER), keys=[key(tokens=60)]) as rig:
        assert (await ask(rig, BEARER)).status == 200
        refused = await ask(rig, BEARER, body=chat(max_tokens=50))
        assert refused.status == 429
        assert b'"type":"key_tokens"' in refused.body
        assert int(refused.headers["retry-after"]) >= 1


async def test_a_refused_request_gives_its_tokens_back() -> None:
    policy = make_policy(queue=QueuePolicy(timeout_s=0.001))
    async with gateway(serving(ANSWER), keys=[key(tokens=1_000)], policy=policy) as rig:
        rig.driver.deliver(BackendLeft(BackendId("s0")))
        before = rig.access.identify([(b"x-api-key", b"sk-team")])
        assert before is not None
        assert (await ask(rig, BEARER, body=chat(max_tokens=500))).status == 503
        told = dict(before.limit_headers(now=rig.entrance.clock()))
        assert told[b"x-ratelimit-remaining-tokens"] == b"1000"


async def test_keys_are_changed_while_running_and_keep_what_they_used_up() -> None:
    async with gateway(serving(ANSWER), keys=[key(requests=2)]) as rig:
        await ask(rig, BEARER)
        rig.access.replace([key("team", "sk-team", "sk-new", requests=2)], required=True)
        assert (await ask(rig, "x-api-key: sk-new")).status == 200
        assert (await ask(rig, BEARER)).status == 429
        rig.access.replace([key("team", "sk-new")], required=True)
        assert (await ask(rig, BEARER)).status == 401
        assert (await ask(rig, "x-api-key: sk-new")).status == 200
        rig.access.replace([], required=False)
        assert (await ask(rig)).status == 200


def test_digests_are_found_by_a_tag_that_differs_from_process_to_process() -> None:
    controls = []
    for salt in (b"one", b"two"):
        control = AccessControl(clock=lambda: 0.0, salt=salt)
        control.replace([key()], required=True)
        controls.append(control)
    tags = [set(control._by_tag) for control in controls]
    assert tags[0].isdisjoint(tags[1])
    with pytest.raises(Refused):
        controls[0].identify([(b"x-api-key", b"sk-other")])
