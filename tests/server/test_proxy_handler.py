from gateway.scheduling.model import BackendId
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.server.proxy_handler import RequestRecord
from tests.server.gateway_rig import CHAT, chat, gateway
from tests.server.raw_server import ok, serving


async def test_every_request_that_ended_is_recorded_once() -> None:
    server = serving(ok(b'{"x": 1}', b"content-type: application/json"))
    async with gateway(server) as rig, rig.client() as client:
        client.post(f"{CHAT}?a=b", chat(), "X-Request-Id: mine")
        await client.response()
        (record,) = rig.records.all
        assert record.duration_s > 0
        assert record._replace(duration_s=0.0) == RequestRecord(
            request_id="mine",
            lease_id="gw-0",
            path=CHAT,
            model="base",
            service=DEFAULT_SERVICE,
            backend_id=BackendId("s0"),
            status=200,
            complete=True,
            duration_s=0.0,
        )


async def test_a_request_that_was_not_understood_is_recorded_with_what_is_known() -> None:
    async with gateway() as rig, rig.client() as client:
        client.post(CHAT, b"nonsense")
        await client.response()
        (record,) = rig.records.all
        assert (record.status, record.complete) == (400, True)
        assert (record.model, record.service, record.backend_id) == (None, None, None)
