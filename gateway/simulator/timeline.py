"""Virtual time: what is to happen, in order."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Timeline:
    """A heap of (instant, sequence number, action); equal instants go in the order they came.

    Attributes:
        now: the instant of what is happening, seconds.
    """

    def __init__(self) -> None:
        """Start empty, at 0."""
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    def at(self, instant: float, action: Callable[[], None]) -> None:
        """Have something happen at an instant, not before now."""
        heappush(self._heap, (instant, next(self._sequence), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen so much later."""
        self.at(self.now + seconds, action)

    def next_at(self) -> float | None:
        """When the next thing happens; None if nothing does."""
        return self._heap[0][0] if self._heap else None

    def run_next(self) -> None:
        """Go to the next thing and have it happen."""
        self.now, _, action = heappop(self._heap)
        action()
