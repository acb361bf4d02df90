from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import BackendId, ServiceName
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.recent_requests import RecentRequests, RequestOrder
from gateway.telemetry.request_record import Outcome
from tests.telemetry.record_builder import make_record


def three() -> RecentRequests:
    ended = EndedRequests(wall_clock=lambda: 5.0)
    recent = RecentRequests(ended=ended, kept=3)
    for number in range(4):
        ended.request_ended(make_record(lease_id=f"gw-{number}", request_id=f"r{number}"))
    return recent


def test_the_newest_come_first_and_the_oldest_give_way() -> None:
    recent = three()
    assert len(recent) == 3
    assert [e.record.lease_id for e in recent.first(limit=9)] == ["gw-3", "gw-2", "gw-1"]
    assert [e.record.lease_id for e in recent.first(limit=1)] == ["gw-3"]
    assert recent.first(limit=0) == []
    assert recent.first(limit=1)[0].ended_at == 5.0


def test_a_request_is_found_by_either_id() -> None:
    recent = three()
    for name in ("gw-2", "r2"):
        found = recent.find(name)
        assert found is not None
        assert found.record.lease_id == "gw-2"
    assert recent.find("gw-0") is None


def test_every_word_must_be_held_somewhere() -> None:
    ended = EndedRequests(wall_clock=lambda: 0.0)
    recent = RecentRequests(ended=ended)
    ended.request_ended(make_record(service=ServiceName("Chat"), backend_id=BackendId("http://a")))
    refused = make_record(
        service=ServiceName("batch"),
        model="batch",
        backend_id=None,
        outcome=Outcome.REFUSED,
        status=429,
        reason=RefusalReason.QUEUE_FULL,
    )
    ended.request_ended(refused)
    for words, services in (
        ("chat", ["Chat"]),
        ("HTTP://A ok", ["Chat"]),
        ("429 queue_full", ["batch"]),
        ("chat 429", []),
        ("  ", ["batch", "Chat"]),
    ):
        assert [e.record.service for e in recent.first(limit=9, words=words)] == services, words


def test_a_very_long_path_is_cut() -> None:
    ended = EndedRequests(wall_clock=lambda: 0.0)
    recent = RecentRequests(ended=ended)
    ended.request_ended(make_record(path="/" + "x" * 8_000))
    assert len(recent.first(limit=1)[0].record.path) == 256


def test_those_with_the_largest_figure_come_first_where_that_is_asked_for() -> None:
    ended = EndedRequests(wall_clock=lambda: 0.0)
    recent = RecentRequests(ended=ended)
    slow = make_record(lease_id="slow", ttft_s=9.0, e2e_s=10.0, completion_tokens=101)
    stretched = make_record(lease_id="stretched", ttft_s=1.0, e2e_s=21.0, completion_tokens=101)
    refused = make_record(
        lease_id="refused", attempts=0, queue_s=0.0, e2e_s=30.0, ttft_s=None, completion_tokens=None
    )
    for record in (slow, refused, stretched):
        ended.request_ended(record)
    for order, expected in (
        (RequestOrder.NEWEST, ["stretched", "refused", "slow"]),
        (RequestOrder.TTFT, ["slow", "stretched"]),
        (RequestOrder.TPOT, ["stretched", "slow"]),
        (RequestOrder.WAIT, ["refused", "stretched", "slow"]),
        (RequestOrder.TOTAL, ["refused", "stretched", "slow"]),
    ):
        found = recent.first(limit=9, order=order)
        assert [ended.record.lease_id for ended in found] == expected, order
    (first,) = recent.first(limit=1, words="slow", order=RequestOrder.TOTAL)
    assert first.record.lease_id == "slow"
