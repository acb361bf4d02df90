"""The gateway's HTTP side on loopback: real scheduler, model servers as a test wants them."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

from gateway.runtime.clock import monotonic_clock
from gateway.runtime.scheduler_driver import SchedulerDriver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import BackendJoined, SchedulerEvent
from gateway.scheduling.model import BackendId, LLMServerPool, LLMService, ServedModel
from gateway.scheduling.policy import (
    CapacityPolicy,
    PickerPolicy,
    QueuePolicy,
    RetryPolicy,
    SchedulingPolicy,
)
from gateway.server.api_keys import AccessControl
from gateway.server.app import Listener, ListenOptions
from gateway.server.backend_client import BackendClient
from gateway.server.backend_directory import BackendDirectory
from gateway.server.entrance import Entrance, EntranceLimits
from gateway.server.front_end import FrontEnd
from gateway.server.options import (
    BackendConnectOptions,
    BackendEndpoint,
    BackendTimeouts,
    FrontEndOptions,
    PoolOptions,
)
from gateway.server.proxy_handler import ProxyHandler
from gateway.server.routes import PoolDirectory, ServingPool
from gateway.telemetry.request_record import RequestRecord
from gateway.wire.credentials import KeyPolicy
from tests.server.raw_client import RawClient
from tests.server.raw_server import RawServer, eventually

_Event = TypeVar("_Event")

MODELS = (ServedModel("base"), ServedModel("adapter", "base"))


class Records:
    """Keeps what the request log would get."""

    def __init__(self) -> None:
        self.all: list[RequestRecord] = []

    def request_ended(self, record: RequestRecord) -> None:
        self.all.append(record)


class Events:
    """Keeps what the scheduler was told."""

    def __init__(self) -> None:
        self.all: list[SchedulerEvent] = []

    def observed(self, event: SchedulerEvent, decisions: Sequence[Decision], *, now: float) -> None:
        self.all.append(event)

    def of_type(self, kind: type[_Event]) -> list[_Event]:
        return [event for event in self.all if isinstance(event, kind)]


class Rig:
    """A running gateway. Servers are named s0, s1, ... in the order given."""

    def __init__(
        self,
        servers: Sequence[RawServer],
        *,
        services: tuple[LLMService, ...] = (),
        policy: SchedulingPolicy | None = None,
        options: FrontEndOptions | None = None,
        pool_options: PoolOptions | None = None,
        timeouts: BackendTimeouts | None = None,
        limits: EntranceLimits | None = None,
        keys: Sequence[KeyPolicy] | None = None,
    ) -> None:
        self.servers = list(servers)
        self.policy = policy or make_policy(*services)
        self.events = Events()
        self.driver = SchedulerDriver(
            scheduler=build_scheduler(self.policy, Random(1)),
            clock=monotonic_clock,
            observers=[self.events],
        )
        self.clients = {
            BackendId(f"s{n}"): BackendClient(
                BackendConnectOptions(
                    endpoint=BackendEndpoint.parse(server.url),
                    timeouts=timeouts or BackendTimeouts(),
                ),
                clock=monotonic_clock,
            )
            for n, server in enumerate(servers)
        }
        self.backends = BackendDirectory(self.clients)
        self.pools = PoolDirectory(
            [
                ServingPool(
                    pool=self.policy.pool,
                    driver=self.driver,
                    backends=self.backends,
                    options=pool_options or PoolOptions(),
                )
            ]
        )
        self.records = Records()
        ids = itertools.count()
        options = options or FrontEndOptions()
        self.access = AccessControl(clock=monotonic_clock, salt=b"tests")
        self.access.replace(keys or (), required=keys is not None)
        self.entrance = Entrance(
            access=self.access, pools=self.pools, clock=monotonic_clock, limits=limits
        )
        self.front_end = FrontEnd(
            proxy=ProxyHandler(
                pools=self.pools,
                options=options,
                clock=monotonic_clock,
                new_id=lambda: f"gw-{next(ids)}",
                observer=self.records,
                entrance=self.entrance,
            ),
            pools=self.pools,
            options=options,
            entrance=self.entrance,
        )
        self.listener = Listener(self.front_end.handle, ListenOptions(idle_s=options.idle_s))

    def join(self, models: tuple[ServedModel, ...] = MODELS) -> None:
        """Let every server be healthy, without a monitor."""
        for backend_id in self.clients:
            self.backends.set_models(backend_id, models)
            self.driver.deliver(BackendJoined(backend_id, models))

    def client(self) -> RawClient:
        return RawClient(self.listener.port)

    @property
    def in_flight(self) -> int:
        """Requests that the scheduler knows of, queued or running."""
        state = self.driver.snapshot()
        return state.tracked_requests + sum(backend.requests for backend in state.backends)

    async def stop(self) -> None:
        await self.listener.close()
        self.backends.close()
        self.driver.stop()


def make_policy(
    *services: LLMService,
    slots: int = 256,
    queue: QueuePolicy | None = None,
    retry: RetryPolicy | None = None,
    accept_unregistered_models: bool = True,
) -> SchedulingPolicy:
    return SchedulingPolicy(
        pool=LLMServerPool("pool", services, accept_unregistered_models=accept_unregistered_models),
        queue=queue or QueuePolicy(),
        retry=retry or RetryPolicy(),
        capacity=CapacityPolicy(max_requests_per_backend=slots),
        picker=PickerPolicy(),
    )


@asynccontextmanager
async def gateway(*servers: RawServer, **settings: object) -> AsyncIterator[Rig]:
    """Start the servers and a gateway in front of them; every server is healthy."""
    for server in servers:
        await server.start()
    rig = Rig(servers, **settings)  # type: ignore[arg-type] # named as in Rig
    rig.join()
    await rig.listener.open()
    try:
        yield rig
    finally:
        await rig.stop()
        for server in servers:
            await server.stop()


CHAT = "/v1/chat/completions"


def chat(**fields: object) -> bytes:
    """A small chat request."""
    return json.dumps({"model": "base", "messages": []} | fields).encode()


@asynccontextmanager
async def crowded_gateway(
    server: RawServer, *, queue: QueuePolicy | None = None
) -> AsyncIterator[tuple[Rig, RawClient]]:
    """A gateway whose only place is taken by a request, and a client that has sent nothing yet."""
    policy = make_policy(slots=1, queue=queue)
    async with gateway(server, policy=policy) as rig, rig.client() as first, rig.client() as second:
        first.post(CHAT, chat())
        await eventually(lambda: rig.in_flight)
        yield rig, second
