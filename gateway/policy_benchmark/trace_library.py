"""Traces by name, read once, with a visible notice where a stand-in takes a missing one's place."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gateway.policy_benchmark.stand_ins import STAND_INS, stand_in_rows
from gateway.policy_benchmark.traces import MissingTraceError, TraceRow, read_trace, source_of


class TraceLibrary:
    """Reads traces from one directory on first use and keeps them.

    Attributes:
        notices: what the user should see: which traces were replaced by synthetic ones.
    """

    def __init__(self, directory: Path, *, stand_ins: bool = True) -> None:
        """Look in `directory`; without `stand_ins` a missing file is an error."""
        self.notices: list[str] = []
        self._directory = directory
        self._stand_ins = stand_ins
        self._rows: dict[str, Sequence[TraceRow]] = {}

    def rows(self, name: str) -> Sequence[TraceRow]:
        """All rows of a trace, in order of arrival.

        Raises:
            BenchmarkError: unknown name, broken file, or missing without a stand-in.
        """
        if name not in self._rows:
            self._rows[name] = self._read(name)
        return self._rows[name]

    def fingerprint(self, name: str) -> str:
        """What of a trace a cached result depends on: its content, or that it is missing."""
        path = self._directory / source_of(name).file
        if not path.is_file():
            return f"{name}: stand-in"
        return f"{name}: {hashlib.sha256(path.read_bytes()).hexdigest()}"

    def _read(self, name: str) -> Sequence[TraceRow]:
        try:
            return read_trace(name, self._directory)
        except MissingTraceError as error:
            if not self._stand_ins or name not in STAND_INS:
                raise
            self.notices.append(f"{error}; a synthetic stand-in with its statistics is used")
            return stand_in_rows(name)
