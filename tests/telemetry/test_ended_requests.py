from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from gateway.scheduling.model import ServiceName
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recent_requests import RecentRequests
from gateway.telemetry.request_record import RequestRecord
from tests.telemetry.record_builder import make_record


class Notes:
    """Notes what it is told, and how often."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.times = 0

    def requests_ended(
        self, records: Sequence[RequestRecord], ended_at: Sequence[float], /
    ) -> None:
        self.times += 1
        ids = [record.lease_id for record in records]
        self.told += zip(ids, ended_at, strict=True)


def test_all_are_told_in_order_and_with_the_time_of_their_end() -> None:
    times = iter(range(150))
    ended = EndedRequests(wall_clock=lambda: float(next(times)))
    first, second = Notes(), Notes()
    ended.tell(first)
    ended.tell(second)
    for number in range(150):
        ended.request_ended(make_record(lease_id=str(number)))
    ended.settle()
    assert first.told == second.told == [(str(number), float(number)) for number in range(150)]


def test_many_are_told_at_once_and_none_twice() -> None:
    ended = EndedRequests(wall_clock=lambda: 0.0)
    notes = Notes()
    ended.tell(notes)
    for _ in range(150):
        ended.request_ended(make_record())
    ended.settle()
    ended.settle()
    assert len(notes.told) == 150
    assert notes.times == 3


def test_who_comes_later_is_not_told_of_what_ended_before() -> None:
    ended = EndedRequests(wall_clock=lambda: 0.0)
    ended.request_ended(make_record(lease_id="before"))
    notes = Notes()
    ended.tell(notes)
    ended.request_ended(make_record(lease_id="after"))
    ended.settle()
    assert notes.told == [("after", 0.0)]


def test_whatever_is_read_holds_every_request_that_has_ended() -> None:
    ended = EndedRequests(wall_clock=lambda: 0.0)
    registry = CollectorRegistry()
    metrics = RequestMetrics(services=[ServiceName("chat")], ended=ended)
    registry.register(metrics)
    recent = RecentRequests(ended=ended)
    labels = {"pool": "pool", "service": "chat", "priority": "0", "outcome": "ok"}
    for number in range(1, 200, 5):
        ended.request_ended(make_record(lease_id=f"a{number}"))
        assert registry.get_sample_value("llm_gateway_requests_total", labels) == number
        ended.request_ended(make_record(lease_id=f"b{number}"))
        assert len(recent) == number + 1
        ended.request_ended(make_record(lease_id=f"c{number}"))
        assert recent.find(f"c{number}") is not None
        ended.request_ended(make_record(lease_id=f"d{number}"))
        assert recent.first(limit=1)[0].record.lease_id == f"d{number}"
        ended.request_ended(make_record(lease_id=f"e{number}"))
        (series,) = metrics.series.values()
        assert series.outcomes == {"ok": number + 4}
