"""What the page is shown in a browser: a pool with every kind of trouble, and a large one."""

from random import Random

from gateway.runtime.clock import monotonic_clock
from gateway.runtime.scheduler_driver import SchedulerDriver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    RequestArrived,
)
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    InferenceRequest,
    LatencyObjective,
    LLMService,
    RequestId,
    ServiceName,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.server.backend_client import BackendClient
from gateway.server.backend_directory import BackendDirectory
from gateway.server.contact import Contact
from gateway.server.options import BackendConnectOptions, BackendEndpoint, PoolOptions
from gateway.server.routes import PoolDirectory, ServingPool
from gateway.server.status_page.build import LivePage, build_live_page
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.request_record import Outcome, RequestRecord
from tests.builders import make_policy, make_request, serving
from tests.telemetry.record_builder import make_record

NOON = 1_800_000_000.0
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"
CHAT = LLMService(
    name=ServiceName("chat"),
    model="chat",
    objective=LatencyObjective(ttft_s=1.0, tpot_s=0.05),
    priority=0,
)
BATCH = LLMService(name=ServiceName("batch"), model="batch")


class Scene:
    """A page over a scheduler that a test feeds; no model server and no client is there."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.driver = SchedulerDriver(
            scheduler=build_scheduler(policy, Random(1)), clock=monotonic_clock
        )
        self.backends = BackendDirectory()
        pool = ServingPool(
            pool=policy.pool,
            driver=self.driver,
            backends=self.backends,
            options=PoolOptions(),
        )
        self.pools = PoolDirectory([pool])
        self.wall = NOON
        self.ended = EndedRequests(wall_clock=lambda: self.wall)
        services = [service.name for service in policy.pool.services]
        self.metrics = RequestMetrics(services=services, ended=self.ended)
        self.page: LivePage = build_live_page(
            pools=self.pools,
            metrics=self.metrics,
            ended=self.ended,
            clock=monotonic_clock,
            wall_clock=lambda: self.wall,
            version="1.2.3",
        )

    def join(self, name: str, *adapters: str, load: BackendLoad | None = None) -> None:
        self.driver.deliver(BackendJoined(BackendId(name), serving(*adapters)))
        if load is not None:
            report = BackendLoadReported(BackendId(name), load, monotonic_clock())
            self.driver.deliver(report)

    def know(self, url: str, contact: Contact) -> None:
        """Have a server that the scheduler has not met."""
        options = BackendConnectOptions(endpoint=BackendEndpoint.parse(url))
        self.backends.add(BackendId(url), BackendClient(options, clock=monotonic_clock))
        self.backends.keep_contact(BackendId(url), contact)

    def arrive(self, request: InferenceRequest) -> None:
        self.driver.deliver(RequestArrived(request, ()))

    def end(self, record: RequestRecord) -> None:
        self.ended.request_ended(record)


def unmet(scene: Scene) -> None:
    """Add a server that has never answered, and one that drains since it is known."""
    never = Contact(draining=False, clock=lambda: 5.0)
    never.failed("Connection refused")
    scene.know("http://gpu-3:8000", never)
    draining = Contact(draining=True, clock=lambda: 5.0)
    draining.made()
    scene.know("http://gpu-4:8000", draining)


def troubled() -> Scene:
    """Two servers, one of them down; `chat` is served, `batch` was refused."""
    scene = Scene(make_policy(CHAT, BATCH, slots=4))
    load = BackendLoad(running=3, waiting=0, kv_usage=0.42, max_loras=3)
    scene.join("http://gpu-1:8000", "lora-a", "lora-b", load=load)
    scene.join("http://gpu-2:8000", "lora-a", "lora-b", load=load)
    scene.arrive(make_request("gw-1", service="chat", model="lora-a", prompt_tokens=800))
    scene.driver.deliver(BackendLeft(BackendId("http://gpu-2:8000")))
    chosen = scene.driver.explain(RequestId("gw-1"))
    assert chosen is not None
    scene.end(
        make_record(
            lease_id="gw-1", request_id="slow-one", backend_id=chosen.chosen, target_model="lora-a"
        )
    )
    scene.end(
        make_record(
            lease_id="gw-2",
            request_id="refused-one",
            service=BATCH.name,
            priority=-1,
            model=HOSTILE,
            target_model=None,
            backend_id=None,
            outcome=Outcome.REFUSED,
            status=429,
            reason=RefusalReason.NO_CAPACITY,
            attempts=0,
            ttft_s=None,
            completion_tokens=None,
        )
    )
    return scene


def large(*, servers: int = 100, services: int = 50) -> Scene:
    """Many servers, each with requests, and many services, each with a history."""
    made = [
        LLMService(
            name=ServiceName(f"service-{number:02}"),
            model=f"model-{number}",
            objective=CHAT.objective,
            priority=0,
        )
        for number in range(services)
    ]
    scene = Scene(make_policy(*made, slots=64))
    adapters = [f"lora-{number}" for number in range(8)]
    load = BackendLoad(running=5, waiting=0, kv_usage=0.5, kv_blocks=9_000, block_tokens=16)
    for number in range(servers):
        scene.join(f"http://gpu-{number:03}:8000", *adapters, load=load)
    for number in range(5 * servers):
        scene.arrive(
            make_request(
                f"gw-{number}",
                service=made[number % services].name,
                model=adapters[number % 8],
                prompt_tokens=500,
            )
        )
    for _ in range(20):
        for service in made:
            scene.end(make_record(service=service.name))
        scene.wall += 2.0
        scene.page.feed.sample()
    return scene
