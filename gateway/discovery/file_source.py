"""Servers that a file lists, or the files of a directory."""

import asyncio
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gateway.discovery.file_stamp import FileStamp, stamp_of
from gateway.discovery.report import SourceReport
from gateway.settings.discovery import FileDiscovery
from gateway.settings.loading import read_file
from gateway.settings.problems import ConfigurationError, problems_of
from gateway.settings.quantities import ServerUrl

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: ServerUrl
    draining: bool = False


def _as_entry(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class _ServerFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    servers: tuple[Annotated[_Entry, BeforeValidator(_as_entry)], ...]


class FileSource:
    """Reads a file, or every .yaml, .yml and .json of a directory, whenever it has changed.

    What cannot be read, or is gone, changes nothing. To remove the servers of one file in a
    directory, remove the file.
    """

    def __init__(self, wanted: FileDiscovery, report: SourceReport) -> None:
        self._wanted = wanted
        self._report = report
        self._read: dict[Path, FileStamp | None] = {}

    async def run(self) -> None:
        """Look until cancelled, at the wanted interval."""
        while True:
            self.look()
            await asyncio.sleep(self._wanted.interval)

    def look(self) -> None:
        """Read what has changed, and report."""
        try:
            stamps = {path: stamp_of(path) for path in self._files()}
        except OSError as error:
            self._report.failed(f"{self._wanted.path}: cannot be read: {error.strerror}")
            self._read = {}
            return
        if stamps == self._read:
            self._report.in_touch()
            return
        servers: dict[str, bool] = {}
        try:
            for path in stamps:
                for entry in _entries(path):
                    servers[entry.url] = entry.draining or servers.get(entry.url, False)
        except ConfigurationError as error:
            self._report.failed(str(error))
            return
        self._read = stamps
        self._report.in_touch()
        self._report.found(servers)

    def _files(self) -> list[Path]:
        path = self._wanted.path
        if not path.is_dir():
            path.stat()  # a file that is gone is an OSError, as a directory would be
            return [path]
        return sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)


def _entries(path: Path) -> tuple[_Entry, ...]:
    values = read_file(path)
    try:
        return _ServerFile.model_validate(values).servers
    except ValidationError as error:
        sources = dict.fromkeys((*values, "servers"), str(path))
        raise ConfigurationError(problems_of(error, sources, section=_ServerFile)) from error
