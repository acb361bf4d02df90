import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import IO, Any

import msgspec
import pytest

from gateway.scheduling.decisions import RefusalReason
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.telemetry.trace_context import TraceContext
from tests.telemetry.record_builder import make_record

NOON = 1_795_348_800.25
"""2026-11-22 12:00:00.250 UTC."""


class Log:
    """A log, and the requests that end."""

    def __init__(self, out: IO[bytes], *, clock: Callable[[], float] = lambda: NOON) -> None:
        self.ended = EndedRequests(wall_clock=clock)
        self.log = RequestLog(out, ended=self.ended)

    def request_ended(self, record: RequestRecord) -> None:
        self.ended.request_ended(record)

    def settle(self) -> None:
        self.ended.settle()

    @property
    def lost_lines(self) -> int:
        return self.log.lost_lines


class FullDisk(io.BytesIO):
    """Has no room."""

    def write(self, _: object, /) -> int:
        raise OSError(28, "No space left on device")


def lines_of(*records: RequestRecord) -> list[dict[str, Any]]:
    out = io.BytesIO()
    log = Log(out)
    for record in records:
        log.request_ended(record)
    log.settle()
    assert log.lost_lines == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_request_is_one_line_of_json_with_every_field() -> None:
    record = make_record()
    [line] = lines_of(record)
    assert line.pop("time") == "2026-11-22T12:00:00.250+00:00"
    assert line == {field: getattr(record, field) for field in RequestRecord.__struct_fields__}


def test_lines_come_in_the_order_in_which_requests_ended() -> None:
    records = [make_record(lease_id=f"r{number}") for number in range(5)]
    assert [line["lease_id"] for line in lines_of(*records)] == ["r0", "r1", "r2", "r3", "r4"]


def test_the_ids_of_a_trace_are_told_by_name() -> None:
    trace = TraceContext(
        trace_id="a" * 32, span_id="b" * 16, upstream_id="c" * 16, parent_id=None, sampled=True
    )
    [line] = lines_of(make_record(trace=trace))
    assert line["trace"] == msgspec.structs.asdict(trace)


def test_outcome_and_reason_are_their_names() -> None:
    [line] = lines_of(make_record(outcome=Outcome.REFUSED, reason=RefusalReason.QUEUE_FULL))
    assert (line["outcome"], line["reason"]) == ("refused", "queue_full")


@pytest.mark.parametrize("text", ['"}\n{"outcome":"ok', "\u2028", "\udcff"])
def test_what_a_client_sends_can_neither_break_nor_avoid_its_line(text: str) -> None:
    lines = lines_of(make_record(request_id=text, path=text))
    assert [(line["request_id"], line["path"]) for line in lines] == [(text, text)]


def test_a_line_is_written_once_and_when_what_has_ended_is_settled() -> None:
    out = io.BytesIO()
    log = Log(out)
    log.request_ended(make_record())
    assert out.getvalue() == b""
    log.settle()
    log.settle()
    assert out.getvalue().count(b"\n") == 1


def test_lines_reach_the_file_behind_a_buffer() -> None:
    raw = io.BytesIO()
    log = Log(io.BufferedWriter(raw))
    log.request_ended(make_record())
    log.settle()
    assert raw.getvalue().count(b"\n") == 1


def test_a_full_disk_loses_lines_and_raises_nothing() -> None:
    log = Log(FullDisk())
    log.request_ended(make_record())
    log.request_ended(make_record())
    log.settle()
    assert log.lost_lines == 2


def test_a_closed_output_loses_lines_and_raises_nothing() -> None:
    out = io.BytesIO()
    log = Log(out)
    out.close()
    log.request_ended(make_record())
    log.settle()
    assert log.lost_lines == 1


def test_lost_lines_are_counted_as_soon_as_somebody_asks() -> None:
    log = Log(FullDisk())
    log.request_ended(make_record())
    assert log.lost_lines == 1


def test_every_line_tells_when_its_request_ended_however_many_are_written_at_once() -> None:
    out = io.BytesIO()
    times = iter(range(200))
    log = Log(out, clock=lambda: NOON + next(times))
    for _ in range(200):
        log.request_ended(make_record())
    log.settle()
    told = [
        datetime.fromisoformat(json.loads(line)["time"]) for line in out.getvalue().splitlines()
    ]
    assert [time.timestamp() for time in told] == [NOON + second for second in range(200)]
