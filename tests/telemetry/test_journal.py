import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from gateway.runtime.scheduler_driver import SchedulerDriver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    DrainStarted,
    RequestArrived,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    BackendId,
    TokenUsage,
)
from gateway.scheduling.policy import QueuePolicy
from gateway.telemetry.journal import (
    JournalWriter,
    read_journal,
    replay,
)
from tests.builders import make_policy, make_request, make_service, serving
from tests.telemetry.journal_files import entries_of, event_text, written
from tests.telemetry.journal_scenario import SEED, write_scenario

ROOT = Path(__file__).resolve().parents[2]


class FullDisk(io.BytesIO):
    """Takes the header, then has no room."""

    def write(self, line: object, /) -> int:
        if self.tell():
            raise OSError(28, "No space left on device")
        return super().write(line)  # type: ignore[arg-type]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    with path.open("wb") as out:
        write_scenario(out)
    return path


# -- replay -----------------------------------------------------------------------------------


def test_a_journal_of_a_busy_pool_replays_without_divergence(scenario: Path) -> None:
    header, entries = read_journal(scenario)
    assert list(replay(header, entries)) == []


def test_the_busy_pool_saw_every_kind_of_event_and_decision(scenario: Path) -> None:
    entries = entries_of(scenario)
    assert {type(entry.event) for entry in entries} == set(get_args(SchedulerEvent))
    everything = b"".join(entry.decisions for entry in entries)
    assert all(kind.__name__.encode() in everything for kind in get_args(Decision))


async def test_a_journal_written_by_a_driver_replays_without_divergence(tmp_path: Path) -> None:
    policy = make_policy(make_service("chat", priority=0), slots=1)
    path = tmp_path / "journal"
    with path.open("wb") as out:
        driver = SchedulerDriver(
            scheduler=build_scheduler(policy, Random(3)),
            clock=asyncio.get_running_loop().time,
            observers=[JournalWriter(out, policy=policy, seed=3)],
        )
        driver.deliver(BackendJoined(BackendId("a"), serving()))
        for number in range(5):
            async with driver.lease(make_request(f"r{number}", service="chat")) as lease:
                await lease.dispatch()
                lease.first_token()
                lease.finished(TokenUsage(100, number))
        driver.stop()
    header, entries = read_journal(path)
    assert list(replay(header, entries)) == []
    assert len(entries_of(path)) == 16


def test_another_seed_is_noticed(scenario: Path) -> None:
    header, entries = read_journal(scenario)
    assert list(replay(header._replace(seed=SEED + 1), entries)) != []


def test_a_tampered_decision_is_found_with_its_line_number(scenario: Path) -> None:
    lines = scenario.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, 1) if b'"Dispatch"' in line)
    lines[number - 1] = lines[number - 1].replace(b'"attempt":1', b'"attempt":2')
    scenario.write_bytes(b"".join(lines))
    header, entries = read_journal(scenario)
    [divergence] = replay(header, entries)
    assert divergence.line == number
    assert '"attempt":2' in divergence.recorded
    assert '"attempt":1' in divergence.replayed


def test_a_tampered_event_is_found_where_it_first_changes_a_decision(scenario: Path) -> None:
    lines = scenario.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, 1) if b'"Dispatch"' in line)
    lines[number - 1] = lines[number - 1].replace(b'"prompt_tokens":100', b'"prompt_tokens":900')
    scenario.write_bytes(b"".join(lines))
    header, entries = read_journal(scenario)
    assert next(replay(header, entries)).line == number


def test_the_spelling_of_a_number_is_no_divergence(tmp_path: Path) -> None:
    full = make_policy(queue=QueuePolicy(max_requests=1))
    path = written(tmp_path, (RequestArrived(make_request("waits")), []), policy=full)
    with path.open("ab") as out:
        out.write(
            b'{"at": 1, "kind": "RequestArrived", "event": %b, "decisions":'
            b' [["Reject", {"request_id": "r", "reason": "queue_full", "retry_after_s": 60}]]}\n'
            % event_text(RequestArrived(make_request("r")))
        )
    header, entries = read_journal(path)
    assert list(replay(header, entries)) == []


def test_a_journal_is_the_same_bytes_under_any_hash_seed() -> None:
    journals = [
        subprocess.run(
            [sys.executable, "-m", "tests.telemetry.journal_scenario"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert journals[0] == journals[1]
    assert journals[0].count(b"\n") > 500


# -- what cannot be written -------------------------------------------------------------------


def test_a_full_disk_loses_lines_and_raises_nothing() -> None:
    journal = JournalWriter(FullDisk(), policy=make_policy(), seed=1)
    for _ in range(3):
        journal.observed(DrainStarted(), [], now=0.0)
    assert journal.lost_lines == 3


def test_after_a_loss_nothing_is_written_that_would_replay_wrongly() -> None:
    out = io.BytesIO()
    journal = JournalWriter(out, policy=make_policy(), seed=1)
    header = out.getvalue()
    journal.observed(BackendLeft(BackendId("\udcff")), [], now=0.0)
    journal.observed(DrainStarted(), [], now=0.0)
    assert (journal.lost_lines, out.getvalue()) == (2, header)


def test_a_closed_file_loses_lines_and_raises_nothing() -> None:
    out = io.BytesIO()
    journal = JournalWriter(out, policy=make_policy(), seed=1)
    out.close()
    journal.observed(DrainStarted(), [], now=0.0)
    assert journal.lost_lines == 1
