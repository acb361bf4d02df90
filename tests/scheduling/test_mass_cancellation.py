"""Ten thousand clients that leave at once, in the queue and at the servers."""

from collections.abc import Sequence
from random import Random

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.model import (
    CRITICAL,
    BackendId,
    LatencyObjective,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import QueuePolicy
from gateway.scheduling.scheduler import Scheduler
from tests.builders import make_policy, make_request, make_service, serving
from tests.scheduling.invariants import assert_everything_is_released, assert_invariants

LEAVING, STAYING = 10_000, 60
SERVERS = tuple(map(BackendId, "abcd"))
SERVICES = (
    make_service("chat", priority=CRITICAL, objective=LatencyObjective(ttft_s=1_000.0)),
    make_service("plain", priority=CRITICAL),
    make_service("batch", max_queue_wait_s=10_000.0),
)


class Crowd:
    """A pool of 32 places with all its requests, and what was decided of each."""

    def __init__(self) -> None:
        policy = make_policy(
            *SERVICES, slots=8, queue=QueuePolicy(max_requests=20_000, timeout_s=10_000.0)
        )
        self.scheduler: Scheduler = build_scheduler(policy, Random(1))
        self.dispatched: list[RequestId] = []
        self.gone: set[RequestId] = set()
        self.now = 0.0
        for server in SERVERS:
            self.tell(ev.BackendJoined(server, serving()))

    def tell(self, event: ev.SchedulerEvent) -> None:
        self.now += 1e-5
        self._note(self.scheduler.handle(event, now=self.now))

    def _note(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            assert isinstance(decision, Dispatch), decision
            assert decision.request_id not in self.gone, f"{decision}, but its client has left"
            self.dispatched.append(decision.request_id)


def test_ten_thousand_who_leave_get_nothing_and_leave_nothing_behind() -> None:
    crowd, rng = Crowd(), Random(2)
    ids = [RequestId(f"r{number}") for number in range(LEAVING + STAYING)]
    service_of = {request_id: rng.choice(SERVICES).name for request_id in ids}
    for request_id in ids:
        request = make_request(request_id, service=service_of[request_id])
        crowd.tell(ev.RequestArrived(request))
    staying = set(rng.sample(ids, STAYING))
    leaving = [request_id for request_id in ids if request_id not in staying]
    rng.shuffle(leaving)
    for request_id in leaving:
        crowd.gone.add(request_id)
        crowd.tell(ev.RequestCancelled(request_id))
    assert_invariants(crowd.scheduler, now=crowd.now)
    for request_id in crowd.dispatched:  # grows while it is gone through
        if request_id not in crowd.gone:
            crowd.tell(ev.ResponseFinished(request_id, TokenUsage(100, 50, None, 50)))
    served = [request_id for request_id in crowd.dispatched if request_id in staying]
    assert set(served) == staying
    assert len(served) == STAYING, "each is dispatched once"
    for service in SERVICES:
        of_service = [r for r in served if service_of[r] == service.name]
        assert of_service == sorted(of_service, key=ids.index), "in order of arrival"
    assert_everything_is_released(crowd.scheduler)
