import json
from random import Random
from typing import Any

import pytest

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import RequestArrived
from gateway.scheduling.model import ServiceName
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.request_record import Outcome
from gateway.telemetry.status_history import POINTS_KEPT, StatusHistory
from tests.builders import make_policy, make_request, make_service
from tests.telemetry.record_builder import make_record

ENDED, REFUSED, TTFT_50, TTFT_95, TPOT_50, TPOT_95, WAITING = range(7)


class Watch:
    """A history of what was counted, and of a pool where requests of `chat` wait for servers."""

    def __init__(self) -> None:
        self.ended = EndedRequests(wall_clock=lambda: self.at)
        services = [ServiceName("chat"), ServiceName("batch")]
        self.metrics = RequestMetrics(services=services, ended=self.ended)
        self.scheduler = build_scheduler(make_policy(make_service("chat")), Random(1))
        self.history = StatusHistory()
        self.at = 100.0

    def point(self, elapsed_s: float = 2.0) -> dict[str, Any]:
        self.at += elapsed_s
        pools = [self.scheduler.snapshot(now=0.0)]
        self.history.add(pools, self.metrics.series, at=self.at)
        (point,) = json.loads(self.history.since(self.history.made - 1))
        assert isinstance(point, dict)
        return point

    def values(self, point: dict[str, Any], service: str) -> list[float | None] | None:
        number = self.history.names.index(("pool", service))
        values: list[float | None] | None = point["services"].get(str(number))
        return values


def test_the_first_point_knows_no_rates() -> None:
    assert Watch().point()["all"] == [None, None, None, None, None, None, 0]


def test_rates_are_since_the_point_before_and_latencies_over_several() -> None:
    watch = Watch()
    watch.point()
    for _ in range(4):
        watch.ended.request_ended(make_record(ttft_s=0.4))
    first = watch.values(watch.point(), "chat")
    second = watch.values(watch.point(), "chat")
    assert first is not None
    assert second is not None
    assert (first[ENDED], second[ENDED]) == (2.0, 0.0)
    assert first[TTFT_50] == second[TTFT_50] == pytest.approx(0.4, abs=0.1)
    assert first[TPOT_95] == pytest.approx(0.1, abs=0.03)


def test_latencies_are_forgotten_after_fifteen_points() -> None:
    watch = Watch()
    watch.point()
    watch.ended.request_ended(make_record())
    points = [watch.point() for _ in range(17)]
    known = [point["all"][TTFT_50] is not None for point in points]
    assert known == [True] * 15 + [False] * 2


def test_services_are_told_apart_and_added_up() -> None:
    watch = Watch()
    watch.point()
    watch.ended.request_ended(make_record(service=ServiceName("chat"), ttft_s=0.1))
    watch.ended.request_ended(make_record(service=ServiceName("batch"), ttft_s=3.0))
    point = watch.point()
    chat, batch = watch.values(point, "chat"), watch.values(point, "batch")
    assert chat is not None
    assert batch is not None
    assert (chat[ENDED], batch[ENDED], point["all"][ENDED]) == (0.5, 0.5, 1.0)
    assert chat[TTFT_95] == pytest.approx(0.1, abs=0.05)
    assert batch[TTFT_95] == pytest.approx(3.0, abs=1.0)


def test_a_service_of_two_priorities_is_one() -> None:
    watch = Watch()
    watch.point()
    for priority in (0, -1):
        watch.ended.request_ended(make_record(priority=priority))
    values = watch.values(watch.point(), "chat")
    assert values is not None
    assert values[ENDED] == 1.0


def test_those_who_wait_are_told() -> None:
    watch = Watch()
    watch.scheduler.handle(RequestArrived(make_request("r1", service="chat"), ()), now=0.0)
    point = watch.point()
    values = watch.values(point, "chat")
    assert values is not None
    assert (values[WAITING], point["all"][WAITING]) == (1, 1)


def test_refusals_are_told_by_reason() -> None:
    watch = Watch()
    watch.point()
    for reason in (RefusalReason.QUEUE_FULL, RefusalReason.QUEUE_FULL, RefusalReason.NO_CAPACITY):
        watch.ended.request_ended(make_record(outcome=Outcome.REFUSED, reason=reason))
    point = watch.point()
    assert point["reasons"] == {"queue_full": 2, "no_capacity": 1}
    assert point["all"][REFUSED] == 1.5
    assert watch.point()["reasons"] == {}


def test_the_last_points_are_kept() -> None:
    watch = Watch()
    for _ in range(POINTS_KEPT + 2):
        watch.point()
    kept = json.loads(watch.history.since(0))
    assert [kept[0]["number"], kept[-1]["number"]] == [2, POINTS_KEPT + 1]
    assert json.loads(watch.history.since(watch.history.made)) == []
