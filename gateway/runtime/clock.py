"""The one home of clocks; everything else takes a `Clock`."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds of a clock that never goes back; only differences mean anything."""

WallClock = Callable[[], float]
"""Seconds since 1970-01-01 UTC; for logs and dates, never for durations."""


# The functions themselves: a frame of Python around each would double what reading a clock costs.
monotonic_clock: Clock = time.monotonic  # noqa: TID251 (this file is its home)
"""Reads the monotonic clock, in seconds. It is also the clock of the event loops."""

wall_clock: WallClock = time.time  # noqa: TID251 (this file is its home)
"""Reads the wall clock, in seconds since 1970-01-01 UTC."""
