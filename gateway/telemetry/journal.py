"""The journal: every fact that went into a scheduler and every order that came out, one per line.

A journal can be replayed: the same policy, seed and facts must give the same orders. The first
line is the header (format, pool, seed, policy); every other line holds the time, the event and the
decisions. Nothing of a prompt is in it, only lengths and hashes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import IO, Any, NamedTuple, get_args

import orjson
from pydantic import TypeAdapter, ValidationError

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.policy import SchedulingPolicy

FORMAT = "llm-gateway-journal-1"

_EVENT_TYPES = MappingProxyType(
    {kind.__name__: TypeAdapter(kind) for kind in get_args(SchedulerEvent)}
)
_POLICY = TypeAdapter(SchedulingPolicy)


class JournalError(Exception):
    """A journal cannot be read; the message names file and line."""


class JournalHeader(NamedTuple):
    """What a scheduler must be built from to replay a journal."""

    policy: SchedulingPolicy
    seed: int


class JournalEntry(NamedTuple):
    """One line: `decisions` is the encoded form, to be compared with `encode_decisions`."""

    line: int
    at: float
    event: SchedulerEvent
    decisions: bytes


class Divergence(NamedTuple):
    """A line whose recorded decisions a replay did not reproduce."""

    line: int
    recorded: str
    replayed: str


def encode_decisions(decisions: Sequence[Decision]) -> bytes:
    """Canonical form of decisions: a JSON list of [kind, fields]."""
    return orjson.dumps([(type(d).__name__, d) for d in decisions], default=_plain)


class JournalWriter:
    """Writes a journal; an observer of one scheduler driver. The file is the caller's."""

    def __init__(self, out: IO[bytes], *, policy: SchedulingPolicy, seed: int) -> None:
        self._out = out
        header = {"format": FORMAT, "seed": seed, "policy": policy}
        out.write(orjson.dumps(header, default=_plain) + b"\n")

    def observed(self, event: SchedulerEvent, decisions: Sequence[Decision], *, now: float) -> None:
        """Append one line."""
        self._out.write(
            b'{"at":%b,"kind":"%b","event":%b,"decisions":%b}\n'
            % (
                orjson.dumps(now),
                type(event).__name__.encode(),
                orjson.dumps(event, default=_plain),
                encode_decisions(decisions),
            )
        )


def read_journal(path: Path) -> tuple[JournalHeader, Iterator[JournalEntry]]:
    """Open a journal: its header, and its entries one by one.

    Raises:
        JournalError: not a journal, or a broken line (raised when it is reached).
    """
    lines = _numbered_lines(path)
    try:
        first = next(lines, None)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from error
    if first is None:
        raise JournalError(f"{path}: is empty; expected a journal's header line")
    header = _parsed(path, *first)
    if header.get("format") != FORMAT:
        raise JournalError(f"{path}, line 1: expected a journal of format {FORMAT!r}")
    try:
        policy = _POLICY.validate_python(header.get("policy"))
    except ValidationError as error:
        raise JournalError(f"{path}, line 1: policy: {error}") from error
    return JournalHeader(policy, int(header.get("seed", 0))), _entries(path, lines)


def replay(header: JournalHeader, entries: Iterable[JournalEntry]) -> Iterator[Divergence]:
    """Feed the entries to a fresh scheduler; yield every line it decides differently."""
    scheduler = build_scheduler(header.policy, Random(header.seed))
    for entry in entries:
        replayed = encode_decisions(scheduler.handle(entry.event, now=entry.at))
        if replayed != entry.decisions:
            yield Divergence(entry.line, entry.decisions.decode(), replayed.decode())


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as lines:
        yield from enumerate(lines, start=1)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JournalError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise JournalError(f"{path}, line {number}: expected a JSON object")
    return parsed


def _entries(path: Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[JournalEntry]:
    for number, line in lines:
        parsed = _parsed(path, number, line)
        adapter = _EVENT_TYPES.get(str(parsed.get("kind")))
        if adapter is None:
            raise JournalError(f"{path}, line {number}: unknown kind {parsed.get('kind')!r}")
        try:
            event = adapter.validate_python(parsed.get("event"))
            at = float(parsed["at"])
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{path}, line {number}: {error}") from error
        yield JournalEntry(number, at, event, orjson.dumps(parsed.get("decisions")))


def _plain(value: object) -> object:
    """Named tuples as lists; orjson knows everything else that appears in events."""
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written to a journal")
