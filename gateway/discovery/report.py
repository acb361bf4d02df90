"""What a source of servers tells: what it found, or why it found nothing new."""

import logging
from collections.abc import Callable, Mapping

from gateway.runtime.clock import Clock
from gateway.settings.quantities import parse_server_url

_LOG = logging.getLogger(__name__)

Found = Mapping[str, bool]
"""Servers by URL, and whether each is to drain."""


class SourceReport:
    """Takes what one source of one pool finds; servers stay as they are while it finds nothing.

    Attributes:
        pool, source: their names.
        errors: looks that failed.
    """

    def __init__(
        self, *, pool: str, source: str, declare: Callable[[Found], None], clock: Clock
    ) -> None:
        """`declare` takes the whole set of servers each time."""
        self.pool = pool
        self.source = source
        self.errors = 0
        self._declare = declare
        self._clock = clock
        self._found_at: float | None = None
        self._troubles: dict[str, str] = {}

    @property
    def age_s(self) -> float | None:
        """Seconds since the source last said what there is; None if it never did."""
        return None if self._found_at is None else self._clock() - self._found_at

    def found(self, servers: Found) -> None:
        """Take the servers that there are now; if one of them cannot be used, none is taken.

        One that is written in several ways is one, which drains if any of them says so.
        """
        known: dict[str, bool] = {}
        try:
            for written, drains in servers.items():
                url = parse_server_url(written)
                known[url] = drains or known.get(url, False)
            self._declare(known)
        except ValueError as error:
            self.failed(str(error))

    def in_touch(self, part: str = "") -> None:
        """Note that a part of the source can be asked, and has nothing against us."""
        self._found_at = self._clock()
        if self._troubles.pop(part, None) is not None:
            _LOG.info("pool %s, %s: can be read again", self.pool, self._name(part))

    def failed(self, trouble: str, part: str = "") -> None:
        """Count a look that failed; the log is told when the reason is a new one."""
        self.errors += 1
        if self._troubles.get(part) != trouble:
            self._troubles[part] = trouble
            _LOG.warning(
                "pool %s, %s: %s; what was found before stays", self.pool, self._name(part), trouble
            )

    def _name(self, part: str) -> str:
        return f"{self.source} {part}".rstrip()
