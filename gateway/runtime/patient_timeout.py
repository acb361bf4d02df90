"""A bound on waiting for others that a loop which was held up does not cut short."""

import asyncio
from types import TracebackType
from typing import Self

_STEPS = 4


class PatientTimeout:
    """Like `asyncio.timeout`, but passes in steps, each a timer of its own.

    An event loop calls timers that are due before it looks at its sockets. Where other work or a
    stopped process held it up for longer than the bound, `asyncio.timeout` blames the other side,
    whose answer has long been there. Here such a gap is one step of four.

    Raises:
        TimeoutError: what it is put around took longer.
    """

    def __init__(self, bound_s: float) -> None:
        """The bound passes after so many seconds, later if the loop is late."""
        self._step_s = bound_s / _STEPS
        self._steps_left = _STEPS
        self._timer: asyncio.TimerHandle | None = None
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        """Begin to count."""
        await self._timeout.__aenter__()
        self._arm()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Turn what the bound has cancelled into TimeoutError."""
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._step_s, self._step)

    def _step(self) -> None:
        self._timer = None
        self._steps_left -= 1
        if self._steps_left:
            self._arm()
        else:
            self._timeout.reschedule(asyncio.get_running_loop().time())
