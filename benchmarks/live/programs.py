"""Processes of this program that a check may signal, kill and start again, on ports that stay."""

import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("llm-gateway")
_START_S = 60.0
_STOP_S = 20.0
_POLL_S = 0.02


class Program:
    """One process; what it prints goes to its log, of all its lives.

    Attributes:
        announced: what the newest life announced.
    """

    def __init__(self, arguments: Sequence[str], announcement: re.Pattern[str], log: Path) -> None:
        """It has started when `announcement` is found in its log."""
        self._arguments = tuple(arguments)
        self._announcement = announcement
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.announced: re.Match[str]

    @property
    def pid(self) -> int:
        """Of the newest life."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *more: str) -> re.Match[str]:
        """Start it, with more arguments from now on; return what it announced.

        Raises:
            RuntimeError: it ended instead of announcing anything.
        """
        self._arguments += more
        began_at = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            process = self._process = await asyncio.create_subprocess_exec(
                PROGRAM, *self._arguments, stdout=output, stderr=output
            )
        async with asyncio.timeout(_START_S):
            while not (found := self._announcement.search(self._said_since(began_at))):
                if process.returncode is not None:
                    raise RuntimeError(f"ended: {' '.join(self._arguments)}; see {self._log}")
                await asyncio.sleep(_POLL_S)
        self.announced = found
        return found

    def keep_port(self, url: str) -> None:
        """Listen at the same port as now in every later life."""
        self._arguments = (*self._arguments, "--port", url.rpartition(":")[2])

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process, if it still runs."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; return the exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """End it, by force if it takes too long or is frozen."""
        if self._process is None or self._process.returncode is not None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _said_since(self, position: int) -> str:
        with self._log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")
