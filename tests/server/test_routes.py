"""Which pool and service answer a model name; the servers here need not run."""

from dataclasses import replace
from hashlib import sha256

import pytest

from gateway.scheduling.model import BackendId, LLMService, ServedModel, ServiceName, TargetModel
from gateway.scheduling.policy import QueuePolicy
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.server.options import PoolOptions
from gateway.server.routes import PoolDirectory
from gateway.wire.credentials import KeyPolicy
from tests.server.gateway_rig import CHAT, Rig, chat, gateway, make_policy
from tests.server.raw_server import RawServer, ok, serving


def service(name: str, model: str) -> LLMService:
    return LLMService(ServiceName(name), model)


def server() -> RawServer:
    return serving(ok(b""))


async def test_a_service_is_found_by_its_model_name() -> None:
    rig = Rig([server()], services=(service("one", "m1"), service("two", "m2")))
    route = rig.pools.route("m2")
    assert route is not None
    assert route.service.name == "two"


async def test_a_model_without_a_service_goes_to_a_pool_that_serves_it_as_default() -> None:
    first, second = Rig([server()]), Rig([server()])
    first.backends.set_models(BackendId("s0"), (ServedModel("a"),))
    second.backends.set_models(BackendId("s0"), (ServedModel("b"),))
    pools = PoolDirectory([*first.pools.pools, *second.pools.pools])
    route = pools.route("b")
    assert route is not None
    assert route.pool is second.pools.pools[0]
    assert route.service.name == DEFAULT_SERVICE
    assert pools.route("c") is None


async def test_a_model_that_only_an_absent_server_could_know_waits_for_it() -> None:
    policy = make_policy(queue=QueuePolicy(timeout_s=0.01))
    async with gateway(policy=policy) as rig, rig.client() as client:
        client.post(CHAT, chat())
        response = await client.response()
        assert response.status == 503
        assert b"No server" in response.body


async def test_a_pool_for_services_only_knows_no_other_models() -> None:
    policy = make_policy(service("one", "m1"), accept_unregistered_models=False)
    rig = Rig([server()], policy=policy)
    rig.join()
    assert rig.pools.route("base") is None
    assert rig.pools.route("m1") is not None


async def test_models_of_a_server_that_left_are_gone_unless_another_has_them() -> None:
    rig = Rig([server(), server()])
    rig.backends.set_models(BackendId("s0"), (ServedModel("a"), ServedModel("b")))
    rig.backends.set_models(BackendId("s1"), (ServedModel("b"),))
    rig.backends.set_unusable(BackendId("s0"))
    assert [model.name for model in rig.backends.served_models()] == ["b"]
    assert rig.pools.any_usable


def with_fallback() -> tuple[PoolDirectory, Rig, Rig]:
    """Service "small" of the second pool answers for "large" of the first."""
    options = PoolOptions(fallbacks={ServiceName("large"): ServiceName("small")})
    first = Rig([server()], services=(service("large", "l"),), pool_options=options)
    second = Rig([server()], services=(service("small", "s"),))
    return PoolDirectory([*first.pools.pools, *second.pools.pools]), first, second


def chosen(pools: PoolDirectory) -> tuple[str, str | None]:
    route = pools.route("l")
    assert route is not None
    return route.service.name, route.instead_of


async def test_a_service_of_another_pool_answers_while_no_server_has_the_model() -> None:
    pools, first, second = with_fallback()
    second.backends.set_models(BackendId("s0"), (ServedModel("s"),))
    assert chosen(pools) == ("small", "large")
    first.backends.set_models(BackendId("s0"), (ServedModel("other"),))
    assert chosen(pools) == ("small", "large")
    first.backends.set_models(BackendId("s0"), (ServedModel("l"),))
    assert chosen(pools) == ("large", None)


async def test_a_fallback_without_servers_helps_nobody() -> None:
    pools, _, _ = with_fallback()
    assert chosen(pools) == ("large", None)


async def test_a_key_is_for_the_service_that_was_asked_for_whoever_answers() -> None:
    pools, _, second = with_fallback()
    second.backends.set_models(BackendId("s0"), (ServedModel("s"),))
    route = pools.route("l")
    assert route is not None
    assert route.asked_for == "large"


async def test_a_target_that_gets_no_traffic_serves_nobody() -> None:
    pools, first, _ = with_fallback()
    targets = (TargetModel("l", 0.0), TargetModel("m", 1.0))
    route = pools.route("l")
    assert route is not None
    split = route._replace(service=replace(route.service, targets=targets))
    first.backends.set_models(BackendId("s0"), (ServedModel("l"),))
    assert not split.is_served
    first.backends.set_models(BackendId("s0"), (ServedModel("m"),))
    assert split.is_served


async def test_the_answer_of_a_fallback_names_the_clients_model_and_is_counted() -> None:
    target = replace(service("small", "s"), targets=(TargetModel("base"),))
    answer = ok(b'{"model":"base"}', b"content-type: application/json")
    options = PoolOptions(fallbacks={ServiceName("large"): ServiceName("small")})
    absent = Rig([server()], services=(service("large", "l"),), pool_options=options)
    async with gateway(serving(answer), services=(target,)) as rig, rig.client() as client:
        rig.pools.replace([*absent.pools.pools, *rig.pools.pools])
        client.post(CHAT, chat(model="l"))
        assert (await client.response()).body == b'{"model":"l"}'
        record = rig.records.all[-1]
        assert (record.service, record.fallback_for) == ("small", "large")


@pytest.mark.parametrize(("service_of_key", "status"), [("large", 200), ("small", 404)])
async def test_with_a_fallback_a_key_is_for_the_service_that_was_asked_for(
    service_of_key: str, status: int
) -> None:
    target = replace(service("small", "s"), targets=(TargetModel("base"),))
    options = PoolOptions(fallbacks={ServiceName("large"): ServiceName("small")})
    absent = Rig([server()], services=(service("large", "l"),), pool_options=options)
    digest = sha256(b"sk-team").digest()
    key = KeyPolicy(
        name="team", digests=(digest,), services=frozenset({ServiceName(service_of_key)})
    )
    answer = ok(b"{}", b"content-type: application/json")
    async with gateway(serving(answer), services=(target,), keys=[key]) as rig:
        rig.pools.replace([*absent.pools.pools, *rig.pools.pools])
        async with rig.client() as client:
            client.post(CHAT, chat(model="l"), "Authorization: Bearer sk-team")
            assert (await client.response()).status == status
