import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gateway.scheduling.decisions import RefusalReason
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.request_log import RequestLog, UnbufferedOutput
from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.telemetry.trace_context import TraceContext
from tests.telemetry.record_builder import make_record

if TYPE_CHECKING:
    from typing_extensions import Buffer

NOON = 1_795_348_800.25
"""2026-11-22 12:00:00.250 UTC."""


class Log:
    """A log, and the requests that end."""

    def __init__(self, out: UnbufferedOutput, *, clock: Callable[[], float] = lambda: NOON) -> None:
        self.ended = EndedRequests(wall_clock=clock)
        self.log = RequestLog(out, ended=self.ended)

    def request_ended(self, record: RequestRecord) -> None:
        self.ended.request_ended(record)

    def settle(self) -> None:
        self.ended.settle()

    @property
    def lost_lines(self) -> int:
        return self.log.lost_lines


class Disk(io.RawIOBase):
    """Has room for so many bytes, and takes at most so many at once."""

    def __init__(self, *, room: int = 1 << 30, at_once: int = 1 << 30) -> None:
        super().__init__()
        self.room = room
        self.at_once = at_once
        self.content = b""

    @property
    def lines(self) -> list[str]:
        """By id of their lease; what is no line of a request stays as it is."""
        found = []
        for line in self.content.decode().splitlines():
            try:
                found.append(json.loads(line)["lease_id"])
            except ValueError:
                found.append(line)
        return found

    def write(self, data: "Buffer", /) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = bytes(data)[: min(self.room, self.at_once)]
        self.content += taken
        self.room -= len(taken)
        return len(taken)


class FullPipe(io.RawIOBase):
    """Would have to wait, and may not."""

    def write(self, _: "Buffer", /) -> None:
        return


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


def test_a_full_disk_loses_lines_and_raises_nothing() -> None:
    disk = Disk(room=0)
    log = Log(disk)
    log.request_ended(make_record())
    log.request_ended(make_record())
    log.settle()
    assert log.lost_lines == 2


def test_lost_lines_do_not_come_later() -> None:
    disk = Disk(room=0)
    log = Log(disk)
    log.request_ended(make_record(lease_id="lost"))
    log.settle()
    disk.room = 10_000
    log.request_ended(make_record(lease_id="kept"))
    log.settle()
    assert disk.lines == ["kept"]
    assert log.lost_lines == 1


def test_lines_are_whole_where_only_a_little_is_taken_at_once() -> None:
    disk = Disk(at_once=100)
    log = Log(disk)
    for number in range(5):
        log.request_ended(make_record(lease_id=f"r{number}"))
    log.settle()
    assert disk.lines == ["r0", "r1", "r2", "r3", "r4"]
    assert log.lost_lines == 0


def line_bytes() -> int:
    disk = Disk()
    log = Log(disk)
    log.request_ended(make_record(lease_id="r0"))
    log.settle()
    return len(disk.content)


@pytest.mark.parametrize(
    ("missing", "whole"), [(-1, 3), (0, 3), (1, 3), (2, 2), (100, 2)], ids=lambda each: f"{each}"
)
def test_of_lines_that_a_disk_takes_in_part_those_that_are_not_whole_are_lost(
    missing: int, whole: int
) -> None:
    disk = Disk(room=3 * line_bytes() - missing)
    log = Log(disk)
    for number in range(5):
        log.request_ended(make_record(lease_id=f"r{number}"))
    log.settle()
    assert log.lost_lines == 5 - whole
    disk.room = 0
    log.request_ended(make_record(lease_id="lost"))
    log.settle()
    disk.room = 1  # the end of the line that was cut
    log.request_ended(make_record(lease_id="lost"))
    log.settle()
    disk.room = 10_000
    for number in range(7, 9):
        log.request_ended(make_record(lease_id=f"r{number}"))
        log.settle()
    assert log.lost_lines == 7 - whole
    kept = [line for line in disk.lines if not line.startswith("{")]
    assert kept == [*(f"r{number}" for number in range(whole)), "r7", "r8"]


def test_an_output_that_may_not_wait_loses_lines() -> None:
    log = Log(FullPipe())
    log.request_ended(make_record())
    assert log.lost_lines == 1


def test_a_closed_output_loses_lines_and_raises_nothing() -> None:
    out = io.BytesIO()
    log = Log(out)
    out.close()
    log.request_ended(make_record())
    log.settle()
    assert log.lost_lines == 1


def test_lost_lines_are_counted_as_soon_as_somebody_asks() -> None:
    log = Log(Disk(room=0))
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
