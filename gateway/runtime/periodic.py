"""An action at a steady interval, for as long as the process serves."""

import asyncio
from collections.abc import Callable


class Periodic:
    """Calls an action again and again; run it in a TaskGroup."""

    def __init__(self, action: Callable[[], None], *, interval_s: float) -> None:
        """`action` is quick and does not raise."""
        self._action = action
        self._interval_s = interval_s

    async def run(self) -> None:
        """Call the action every interval until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                self._action()
        finally:
            self._action()
