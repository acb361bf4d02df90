"""A report whose servers a test looks at."""

from gateway.discovery.report import Found, SourceReport
from gateway.runtime.clock import monotonic_clock


class Seen:
    """What a source has told."""

    def __init__(self, source: str = "source") -> None:
        self.told: list[dict[str, bool]] = []
        self.report = SourceReport(
            pool="p", source=source, declare=self._declare, clock=monotonic_clock
        )

    @property
    def servers(self) -> dict[str, bool]:
        """The newest."""
        return self.told[-1] if self.told else {}

    def _declare(self, servers: Found) -> None:
        self.told.append(dict(servers))
