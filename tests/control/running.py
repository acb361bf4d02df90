"""The gateway as it is shipped, in front of model servers that a test holds in its hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from gateway.assembly import build_gateway
from gateway.control.configuration import ConfigurationInForce
from gateway.control.reload import Reloader
from gateway.settings.schema import Settings
from tests.server.gateway_rig import CHAT
from tests.server.raw_client import RawClient
from tests.server.raw_server import DONE, STREAM_HEAD, Peer, chunked, event, eventually, ok
from tests.server.test_backend_monitor import Engine


class ModelServer(Engine):
    """Serves the model `base`; holds streams after their first event until told to go on."""

    def __init__(self, *models: str) -> None:
        super().__init__()
        listed = ",".join(f'{{"id":"{name}"}}' for name in models or ("base",))
        self.pages["/v1/models"] = ok(b'{"data":[%b]}' % listed.encode())
        self.go = asyncio.Event()
        self.answered = 0

    async def _serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            path = request.line.split(" ")[1]
            self.asked.append(path)
            self.requests.append(request)
            if path != CHAT:
                page = self.pages[path]
                assert page is not None
                await peer.send(page)
                continue
            self.answered += 1
            if b'"stream":true' in request.body.replace(b" ", b""):
                await peer.send(STREAM_HEAD + chunked(event("hi")))
                await self.go.wait()
                await peer.send(chunked(event("", "stop"), DONE) + b"0\r\n\r\n")
            else:
                await peer.send(ok(b"{}", b"content-type: application/json"))


class RunningGateway:
    """What tests look at; `loaded` is what a reload will find."""

    def __init__(self, settings: Settings) -> None:
        self.loaded = settings
        self.configuration: ConfigurationInForce
        self.reloader: Reloader
        self.ports = (0, 0)

    def client(self) -> RawClient:
        return RawClient(self.ports[0])

    def admin(self) -> RawClient:
        return RawClient(self.ports[1])


def settings(*pools: dict[str, object], **keys: object) -> Settings:
    """Settings with ports of the system's choice, and looks at servers in quick succession."""
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 0,
        "admin_port": 0,
        "seed": 1,
        "request_log": None,
        "health_interval": "5ms",
        "metrics_interval": "5ms",
        "pools": pools,
    }
    return Settings.model_validate(values | keys)


def pool(*servers: ModelServer, **keys: object) -> dict[str, object]:
    return {"name": "pool", "servers": tuple(each.url for each in servers), **keys}


@asynccontextmanager
async def running(first: Settings) -> AsyncIterator[RunningGateway]:
    """Run a gateway; leave when nothing of it is left."""
    gateway = RunningGateway(first)
    stop = asyncio.Event()
    started: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    with ExitStack() as files:
        parts = build_gateway(first, files, load=lambda: gateway.loaded)
        gateway.configuration, gateway.reloader = parts.configuration, parts.reloader
        task = asyncio.create_task(
            parts.gateway.run(
                stop=stop, drain_s=lambda: 1.0, started=lambda *ports: started.set_result(ports)
            )
        )
        try:
            gateway.ports = await asyncio.wait_for(started, 5)
            yield gateway
        finally:
            stop.set()
            await task


async def ready(gateway: RunningGateway) -> None:
    """Wait until a server takes requests."""

    async def is_ready() -> bool:
        async with gateway.client() as client:
            client.get("/ready")
            return (await client.response()).status == 200

    for _ in range(1_000):
        if await is_ready():
            return
        await asyncio.sleep(0.003)
    raise AssertionError("no server took requests")


__all__ = ["ModelServer", "RunningGateway", "eventually", "pool", "ready", "running", "settings"]
