"""Metrics of what changes the gateway while it runs: servers that come and go, sources, reloads."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.telemetry import metric_definitions as definitions
from gateway.telemetry.scrape_collectors import family_of


class SourceFigures(NamedTuple):
    """One source of servers: looks that failed, and seconds since one that did not, if any."""

    pool: str
    source: str
    errors: int
    age_s: float | None


class ControlCollector(Collector):
    """Asks when a scrape asks."""

    def __init__(
        self,
        *,
        servers: Callable[[], Mapping[tuple[str, str], int]],
        sources: Callable[[], Iterable[SourceFigures]],
        reloads: Callable[[], Mapping[str, int]],
    ) -> None:
        """`servers` counts by pool and state, `reloads` by result."""
        self._servers = servers
        self._sources = sources
        self._reloads = reloads

    def collect(self) -> Iterator[Metric]:
        """Tell what there is."""
        sources = list(self._sources())
        yield family_of(definitions.SERVERS, list(self._servers().items()))
        yield family_of(
            definitions.DISCOVERY_ERRORS, [((s.pool, s.source), s.errors) for s in sources]
        )
        yield family_of(definitions.DISCOVERY_AGE, [((s.pool, s.source), s.age_s) for s in sources])
        yield family_of(
            definitions.RELOADS, [((result,), count) for result, count in self._reloads().items()]
        )
