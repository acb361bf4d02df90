"""Which pool and service answer a model name; the servers here need not run."""

from gateway.scheduling.model import BackendId, LLMService, ServedModel, ServiceName
from gateway.scheduling.policy import QueuePolicy
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.server.routes import PoolDirectory
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
