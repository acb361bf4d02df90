"""When the configuration is read again: asked for by a signal, or a file of it has changed."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from gateway.control.configuration import ConfigurationInForce
from gateway.discovery.file_stamp import FileStamp, stamp_of
from gateway.settings.problems import ConfigurationError

_LOOK_S = 1.0


class Reloader:
    """Reloads a configuration; run it in a TaskGroup."""

    def __init__(
        self,
        configuration: ConfigurationInForce,
        *,
        files: Callable[[], Iterable[Path]],
        look_s: float = _LOOK_S,
    ) -> None:
        """Take what is to be reloaded; `files` are those to look at now, which may be none."""
        self._configuration = configuration
        self._files = files
        self._look_s = look_s
        self._asked = asyncio.Event()

    def request(self) -> None:
        """Reload soon; call it from a signal's handler."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is due, until cancelled."""
        in_force = seen = self._stamps()
        while True:
            asked = await self._wait()
            stamps = self._stamps()
            # A file that changes from look to look is still being written.
            if asked or (stamps != in_force and stamps == seen):
                in_force = stamps
                with suppress(ConfigurationError):  # logged and counted where it was raised
                    self._configuration.reload()
            seen = stamps

    async def _wait(self) -> bool:
        """Wait for the next look; return whether a reload was asked for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_s):
                await self._asked.wait()
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    def _stamps(self) -> dict[Path, FileStamp | None]:
        return {path: stamp_of(path) for path in self._files()}
