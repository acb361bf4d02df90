"""How late the event loop is: the first thing to look at when the gateway itself is slow."""

import asyncio
from collections.abc import Callable

from gateway.runtime.clock import Clock

_INTERVAL_S = 0.25


class LoopLag:
    """Sleeps again and again, and tells by how much longer that took; run it in a TaskGroup."""

    def __init__(self, observe: Callable[[float], None], *, clock: Clock) -> None:
        """Tell `observe` of each sleep, seconds late."""
        self._observe = observe
        self._clock = clock

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due_at = self._clock() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self._observe(max(0.0, self._clock() - due_at))
