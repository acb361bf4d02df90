from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    DeadlinePassed,
    DispatchFailed,
    DrainStarted,
    FirstTokenReceived,
    PoliciesChanged,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    Forecast,
    LatencyObjective,
    RequestId,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.telemetry.journal import (
    JournalError,
    JournalWriter,
    encode_decisions,
    read_journal,
)
from gateway.wire.openai_request import parse_json_request
from tests.builders import make_policy, make_request, make_service
from tests.strategies import (
    backend_ids,
    backend_loads,
    failure_kinds,
    policies,
    requests,
    served_models,
    usages,
)
from tests.telemetry.journal_files import entries_of, event_text, written

ids = st.text(min_size=1).map(RequestId)
instants = st.floats(0.0, 1e9)
forecasts = st.builds(Forecast, *[st.floats(0.0, 1e6)] * 4)
retry_afters = st.none() | st.floats(0.0, 60.0)
EVENTS: dict[type, st.SearchStrategy[SchedulerEvent]] = {
    RequestArrived: st.builds(
        RequestArrived,
        requests(),
        st.lists(st.tuples(backend_ids, instants), max_size=3).map(tuple),
    ),
    RequestCancelled: st.builds(RequestCancelled, ids),
    FirstTokenReceived: st.builds(FirstTokenReceived, ids),
    ResponseProgressed: st.builds(
        ResponseProgressed,
        backend_ids,
        st.lists(st.tuples(ids, st.integers(0, 1 << 31))).map(tuple),
        instants,
    ),
    ResponseFinished: st.builds(ResponseFinished, ids, usages(), st.booleans()),
    DispatchFailed: st.builds(DispatchFailed, ids, failure_kinds, st.booleans()),
    BackendJoined: st.builds(BackendJoined, backend_ids, served_models()),
    BackendDraining: st.builds(BackendDraining, backend_ids),
    BackendLeft: st.builds(BackendLeft, backend_ids, st.booleans()),
    BackendLoadReported: st.builds(BackendLoadReported, backend_ids, backend_loads(), instants),
    DeadlinePassed: st.builds(DeadlinePassed),
    PoliciesChanged: st.builds(PoliciesChanged, policies()),
    DrainStarted: st.builds(DrainStarted),
}
decisions_of_any_kind = st.one_of(
    st.builds(Dispatch, ids, backend_ids, st.text(), forecasts, st.integers(1, 5)),
    st.builds(Reject, ids, st.sampled_from(RefusalReason), retry_afters),
    st.builds(Evict, ids, st.sampled_from(RefusalReason), retry_afters),
)


# -- round trips ------------------------------------------------------------------------------


def test_the_round_trips_below_cover_every_kind_of_event() -> None:
    assert set(EVENTS) == set(get_args(SchedulerEvent))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_an_event_comes_back_as_it_went_in(
    kind: type, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    event = data.draw(EVENTS[kind])
    [entry] = entries_of(written(tmp_path_factory.getbasetemp(), (event, [])))
    assert entry.event == event
    assert type(entry.event) is kind


@given(decisions=st.lists(decisions_of_any_kind, max_size=3))
def test_decisions_come_back_in_the_form_that_a_replay_compares(
    tmp_path_factory: pytest.TempPathFactory, decisions: list[Decision]
) -> None:
    path = written(tmp_path_factory.getbasetemp(), (DeadlinePassed(), decisions))
    assert entries_of(path)[0].decisions == encode_decisions(decisions)


@given(policy=policies(), seed=st.integers(0, (1 << 63) - 1))
def test_the_policy_and_the_seed_come_back(
    tmp_path_factory: pytest.TempPathFactory, policy: SchedulingPolicy, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "journal"
    with path.open("wb") as out:
        JournalWriter(out, policy=policy, seed=seed)
    assert read_journal(path)[0] == (policy, seed)


def test_an_objective_comes_back(tmp_path: Path) -> None:
    service = make_service(objective=LatencyObjective(ttft_s=1, tpot_s=0.05, percentile=0.9))
    path = written(tmp_path, policy=make_policy(service))
    assert read_journal(path)[0].policy.pool.services == (service,)


def test_nothing_of_a_prompt_is_written() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"my secret plan " * 99)
    parsed = parse_json_request("/v1/chat/completions", body)
    request = replace(
        make_request(), prompt_bytes=parsed.prompt_bytes, prefix_blocks=parsed.prefix_blocks
    )
    assert parsed.prefix_blocks
    assert b"secret" not in event_text(RequestArrived(request))


# -- what cannot be read ----------------------------------------------------------------------

LEFT = (
    b'{"at":1.0,"kind":"BackendLeft","event":{"backend_id":"a","for_good":false},"decisions":[]}\n'
)
FINISHED = (
    b'{"at":1.0,"kind":"ResponseFinished","event":{"request_id":"r","usage":[1,2,3,4]},'
    b'"decisions":[]}\n'
)
BROKEN = {
    "truncated": (LEFT[:40] + b"\n", "truncated"),
    "not JSON": (b"hello\n", "malformed"),
    "not UTF-8": (LEFT.replace(b'"a"', b'"\xff"'), "utf-8"),
    "not an object": (b"[1]\n", "Expected `object`"),
    "empty": (b"\n", "truncated"),
    "unknown kind": (LEFT.replace(b"Left", b"Exploded"), "unknown kind 'BackendExploded'"),
    "no time": (LEFT.replace(b'"at":1.0,', b""), "missing required field `at`"),
    "no decisions": (LEFT.replace(b',"decisions":[]', b""), "missing required field `decisions`"),
    "decisions of another form": (LEFT.replace(b"[]", b"7"), "Expected `array`"),
    "another line's field": (LEFT.replace(b'{"at"', b'{"now":1,"at"'), "unknown field `now`"),
    "a field too few": (LEFT.replace(b'"backend_id":"a",', b""), "missing required field"),
    "a field too many": (LEFT.replace(b'"a"', b'"a","zone":"b"'), "other fields"),
    "an optional field too few": (FINISHED, "other fields"),
    "a value of another type": (LEFT.replace(b'"a"', b"7"), "Expected `str`"),
    "time goes back": (LEFT.replace(b"1.0", b"0.5"), "time 0.5 is before"),
}


@pytest.mark.parametrize(("line", "complaint"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named_with_file_and_number(
    tmp_path: Path, line: bytes, complaint: str
) -> None:
    path = written(tmp_path)
    with path.open("ab") as out:
        out.write(LEFT + line + LEFT)
    entries = read_journal(path)[1]
    assert next(entries).line == 2
    with pytest.raises(JournalError, match=complaint) as broken:
        next(entries)
    assert str(broken.value).startswith(f"{path}, line 3: ")


HEADERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "older format": (lambda h: h.replace(b"journal-1", b"journal-0"), "line 1: is of format"),
    "another file": (lambda _: b'{"name":"package.json"}\n', "line 1: is of format ''; expected"),
    "not JSON": (lambda _: b"#!/bin/sh\n", "line 1: .*malformed"),
    "empty": (lambda _: b"", "is empty"),
    "no policy": (lambda h: h.replace(b'"policy"', b'"politics"'), "line 1, policy: Expected"),
    "seed of another type": (lambda h: h.replace(b'"seed":1', b'"seed":"x"'), "line 1: Expected"),
    "unknown policy": (
        lambda h: h.replace(b'"latency"', b'"lottery"'),
        "line 1, policy: Invalid enum value",
    ),
    "parameter of another version": (
        lambda h: h.replace(b'"max_attempts"', b'"most_attempts"'),
        "line 1, policy: has other fields",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_cannot_be_used_is_told(
    tmp_path: Path, change: Callable[[bytes], bytes], complaint: str
) -> None:
    path = written(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(JournalError, match=complaint) as broken:
        read_journal(path)
    assert str(path) in str(broken.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read: No such file"):
        read_journal(tmp_path / "nowhere")
