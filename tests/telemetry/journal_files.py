"""Writes and reads small journals."""

import io
from pathlib import Path

from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import (
    SchedulerEvent,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.telemetry.journal import (
    JournalEntry,
    JournalWriter,
    read_journal,
)
from tests.builders import make_policy


def written(
    tmp: Path, *lines: tuple[SchedulerEvent, list[Decision]], policy: SchedulingPolicy | None = None
) -> Path:
    """A journal of these lines, a second apart."""
    path = tmp / "journal"
    with path.open("wb") as out:
        journal = JournalWriter(out, policy=policy or make_policy(), seed=1)
        for at, (event, decisions) in enumerate(lines):
            journal.observed(event, decisions, now=float(at))
    return path


def entries_of(path: Path) -> list[JournalEntry]:
    return list(read_journal(path)[1])


def event_text(event: SchedulerEvent) -> bytes:
    out = io.BytesIO()
    JournalWriter(out, policy=make_policy(), seed=1).observed(event, [], now=0.0)
    line = out.getvalue().splitlines()[1]
    return line.partition(b'"event":')[2].partition(b',"decisions"')[0]
