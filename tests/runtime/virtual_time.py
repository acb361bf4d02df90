"""An event loop whose clock jumps to the next timer, so that waiting takes no time."""

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from selectors import SelectorKey
from typing import TypeVarTuple, Unpack

_Ts = TypeVarTuple("_Ts")


class _JumpingSelector(selectors.SelectSelector):
    """Instead of blocking for a timeout, adds it to `elapsed_s`."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0
        self._turns_without_time = 0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and no timer is set: this would hang for ever")
        self._turns_without_time = 0 if timeout > 0 else self._turns_without_time + 1
        if self._turns_without_time > 10_000:
            raise RuntimeError("something runs again and again, and time stands still")
        self.elapsed_s += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 1,000 s and moves only when everything waits.

    With `whole_milliseconds`, timers are rounded down, as uvloop's may be.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self.whole_milliseconds = False
        super().__init__(self._jumping)

    def time(self) -> float:
        return 1_000.0 + self._jumping.elapsed_s

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if self.whole_milliseconds:
            delay = int(delay * 1_000) / 1_000
        return super().call_later(delay, callback, *args, context=context)
