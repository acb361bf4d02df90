"""A server that was slow for a while, and is not any more."""

from collections import Counter
from heapq import heappop, heappush
from random import Random

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import (
    BackendJoined,
    FirstTokenReceived,
    RequestArrived,
    ResponseFinished,
)
from gateway.scheduling.model import BackendId, RequestId, ServedModel, TokenUsage
from tests.builders import make_policy, make_request

SLOW_UNTIL_S = 2.0
IN_FLIGHT = 30


class ClosedLoop:
    """Keeps as many requests in flight on three servers; `c` answers slowly at first."""

    def __init__(self) -> None:
        self.scheduler = build_scheduler(make_policy(), Random(1))
        self.now = 0.0
        self.arrived = 0
        self.sent: Counter[BackendId] = Counter()
        self.ends: list[tuple[float, int, RequestId]] = []
        for name in "abc":
            joined = BackendJoined(BackendId(name), (ServedModel("base"),))
            self.scheduler.handle(joined, now=0.0)

    def arrive(self) -> None:
        self.arrived += 1
        request = make_request(f"r{self.arrived}", prompt_tokens=10, max_tokens=50)
        self.carry_out(self.scheduler.handle(RequestArrived(request), now=self.now))

    def carry_out(self, decisions: list[Decision]) -> None:
        for dispatch in decisions:
            assert isinstance(dispatch, Dispatch)
            slow = dispatch.backend_id == "c" and self.now < SLOW_UNTIL_S
            first_at = self.now + (0.6 if slow else 0.02)
            self.sent[dispatch.backend_id] += 1
            heappush(self.ends, (first_at, 0, dispatch.request_id))
            heappush(self.ends, (first_at + 0.4, 1, dispatch.request_id))

    def run(self, until: float) -> None:
        for _ in range(IN_FLIGHT):
            self.arrive()
        while self.ends and self.now < until:
            self.now, is_end, request_id = heappop(self.ends)
            if not is_end:
                event: FirstTokenReceived | ResponseFinished = FirstTokenReceived(request_id)
            else:
                event = ResponseFinished(request_id, TokenUsage(10, 50, None, 50))
            self.carry_out(self.scheduler.handle(event, now=self.now))
            if is_end:
                self.arrive()


def test_a_server_that_was_slow_at_first_gets_its_share_again() -> None:
    loop = ClosedLoop()
    loop.run(until=SLOW_UNTIL_S + 3.0)
    loop.sent.clear()
    loop.run(until=loop.now + 10.0)

    assert loop.sent[BackendId("c")] > 0.25 * loop.sent.total()
