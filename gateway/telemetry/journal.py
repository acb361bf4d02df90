"""The journal: every fact that went into a scheduler and every order that came out, one per line.

A journal can be replayed: the same policy, seed and facts must give the same orders. The first
line is the header (format, pool, seed, policy); every other line holds the time, the event and the
decisions. Nothing of a prompt is in it, only lengths and hashes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import IO, NamedTuple, TypeVar, get_args

import msgspec

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.policy import SchedulingPolicy

FORMAT = "llm-gateway-journal-1"

_T = TypeVar("_T")


class _Header(msgspec.Struct):
    """The first line; any JSON object passes, so that the format is what is complained of."""

    format: str = ""
    seed: int = 0
    policy: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """Every other line; `kind` is the type of the event."""

    at: float
    kind: str
    event: msgspec.Raw
    decisions: msgspec.Raw


_HEADER = msgspec.json.Decoder(_Header)
_LINE = msgspec.json.Decoder(_Line)
_POLICY = msgspec.json.Decoder(SchedulingPolicy)
_DECISIONS = msgspec.json.Decoder(list[tuple[str, dict[str, object]]])
_EVENTS = MappingProxyType(
    {kind.__name__: msgspec.json.Decoder(kind) for kind in get_args(SchedulerEvent)}
)
_encode = msgspec.json.Encoder().encode


class JournalError(Exception):
    """A journal cannot be read; the message names file and line."""


class JournalHeader(NamedTuple):
    """What a scheduler must be built from to replay a journal."""

    policy: SchedulingPolicy
    seed: int


class JournalEntry(NamedTuple):
    """One line; `decisions` is in the form of `encode_decisions`."""

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
    return _encode([(type(decision).__name__, decision) for decision in decisions])


class JournalWriter:
    """Writes a journal; an observer of one scheduler driver. The file is the caller's.

    Attributes:
        lost_lines: lines that could not be written. A journal with a hole replays to nothing, so
            from the first loss (a full disk, say) all are lost.
    """

    def __init__(self, out: IO[bytes], *, policy: SchedulingPolicy, seed: int) -> None:
        """Write the header to `out`, which should be buffered.

        Raises:
            OSError: it cannot be written.
        """
        self._out = out
        self.lost_lines = 0
        out.write(_encode({"format": FORMAT, "seed": seed, "policy": policy}) + b"\n")

    def observed(self, event: SchedulerEvent, decisions: Sequence[Decision], *, now: float) -> None:
        """Append one line. Never raises: requests go on when the disk is full."""
        if self.lost_lines:
            self.lost_lines += 1
            return
        kind = type(event).__name__
        try:
            self._out.write(
                b'{"at":%b,"kind":"%b","event":%b,"decisions":%b}\n'
                % (_encode(now), kind.encode(), _encode(event), encode_decisions(decisions))
            )
        except (OSError, ValueError):  # ValueError: the file was closed, or text that is no UTF-8
            self.lost_lines += 1


def read_journal(path: Path) -> tuple[JournalHeader, Iterator[JournalEntry]]:
    """Open a journal: its header, and its entries one by one.

    Raises:
        JournalError: not a journal, or a broken line (raised when it is reached).
    """
    lines = _numbered_lines(path)
    first = next(lines, None)
    if first is None:
        raise JournalError(f"{path}: is empty; expected a journal's header line")
    number, line = first
    header = _decoded(_HEADER, line, where=f"{path}, line {number}")
    if header.format != FORMAT:
        raise JournalError(
            f"{path}, line {number}: is of format {header.format!r}; expected {FORMAT!r}"
        )
    policy = _decoded_exactly(_POLICY, header.policy, where=f"{path}, line {number}, policy")
    return JournalHeader(policy, header.seed), _entries(path, lines)


def replay(header: JournalHeader, entries: Iterable[JournalEntry]) -> Iterator[Divergence]:
    """Feed the entries to a fresh scheduler; yield every line it decides differently."""
    scheduler = build_scheduler(header.policy, Random(header.seed))
    for entry in entries:
        replayed = encode_decisions(scheduler.handle(entry.event, now=entry.at))
        if not _same(replayed, entry.decisions):
            yield Divergence(entry.line, entry.decisions.decode(), replayed.decode())


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as lines:
            yield from enumerate(lines, start=1)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from error


def _entries(path: Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[JournalEntry]:
    latest = float("-inf")
    for number, raw in lines:
        where = f"{path}, line {number}"
        line = _decoded(_LINE, raw, where=where)
        if line.at < latest:
            raise JournalError(f"{where}: its time {line.at} is before the {latest} of another")
        latest = line.at
        decoder = _EVENTS.get(line.kind)
        if decoder is None:
            raise JournalError(f"{where}: unknown kind {line.kind!r}")
        event = _decoded_exactly(decoder, line.event, where=where)
        _decoded(_DECISIONS, line.decisions, where=where)
        yield JournalEntry(number, line.at, event, bytes(line.decisions))


def _decoded(decoder: msgspec.json.Decoder[_T], raw: bytes | msgspec.Raw, *, where: str) -> _T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"{where}: {error}") from error


def _decoded_exactly(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw, *, where: str) -> _T:
    """Decode a value that this version would write in the same way, with no field more or less."""
    value = _decoded(decoder, raw, where=where)
    if not _same(_encode(value), raw):
        raise JournalError(f"{where}: has other fields than this version writes")
    return value


def _same(one: bytes, other: bytes | msgspec.Raw) -> bool:
    """Whether two JSON texts mean the same; 1 and 1.0 do."""
    return one == other or bool(msgspec.json.decode(one) == msgspec.json.decode(other))
