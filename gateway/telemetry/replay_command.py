"""`llm-gateway replay JOURNAL`: does the scheduler still decide as the journal says?

Exit status: 0 every decision was reproduced, 1 some were not, 2 the journal cannot be read.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from gateway.telemetry.journal import Divergence, JournalEntry, JournalError, read_journal, replay

_SHOWN = 5
"""Divergences printed; what follows the first few mostly follows from them."""


class _Tally:
    """Counts what passes by on its way to the replay."""

    def __init__(self) -> None:
        self.events = 0
        self.decisions = 0

    def counting(self, entries: Iterable[JournalEntry]) -> Iterator[JournalEntry]:
        for entry in entries:
            self.events += 1
            self.decisions += len(msgspec.json.decode(entry.decisions))
            yield entry


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("journal", metavar="JOURNAL", type=Path, help="file written by --journal")


def run(args: Namespace) -> int:
    """Replay the journal and tell what came of it."""
    tally = _Tally()
    different = 0
    try:
        header, entries = read_journal(args.journal)
        for divergence in replay(header, tally.counting(entries)):
            different += 1
            if different <= _SHOWN:
                sys.stdout.write(_told(args.journal, divergence))
    except JournalError as error:
        sys.stderr.write(f"llm-gateway: {error}\n")
        if tally.events:
            sys.stderr.write(f"llm-gateway: before it, {_summary(tally, different)}\n")
        return 2
    sys.stdout.write(f"{_summary(tally, different)}\n")
    return 1 if different else 0


def _summary(tally: _Tally, different: int) -> str:
    found = (
        f"{different:,} events were decided differently"
        if different
        else "every decision was reproduced"
    )
    return f"{tally.events:,} events, {tally.decisions:,} decisions: {found}"


def _told(path: Path, divergence: Divergence) -> str:
    return (
        f"{path}:{divergence.line}: recorded {divergence.recorded}\n"
        f"  but replayed {divergence.replayed}\n"
    )
