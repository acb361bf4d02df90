"""Looks at pools and counts, and tells them as JSON."""

from collections.abc import Callable

from gateway.server.routes import PoolDirectory
from gateway.telemetry.json_text import encode_json
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.status_history import StatusHistory


class StatusSampler:
    """Makes the state that the page shows, and the points of its charts.

    Attributes:
        history: the points.
    """

    def __init__(
        self,
        *,
        pools: PoolDirectory,
        metrics: RequestMetrics,
        wall_clock: Callable[[], float],
        version: str,
    ) -> None:
        """Look at `pools` and at what `metrics` counted; `version` is told with the state."""
        self._pools = pools
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._version = version
        self.history = StatusHistory()

    def make_point(self) -> None:
        """Add a point to the history."""
        pools = [pool.snapshot() for pool in self._pools.pools]
        self.history.add(pools, self._metrics.series, at=self._wall_clock())

    def state(self) -> bytes:
        """Encode the state now: `{"at", "version", "series", "pools"}`.

        `series` are the names behind the numbers in points; `pools` are as `/debug/state` has them.
        """
        return encode_json(
            {
                "at": self._wall_clock(),
                "version": self._version,
                "series": self.history.names,
                "pools": [pool.snapshot() for pool in self._pools.pools],
            }
        )
