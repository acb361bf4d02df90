"""Requests that have ended, collected and then told to all that watch, many at once."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gateway.telemetry.request_record import RequestRecord

_TOLD_AT_ONCE: Final = 64
"""Told one at a time, between requests, each would find code and data of those who watch gone from
the processor's caches, and leave those of the next request colder."""


class BatchObserver(Protocol):
    """Sees every proxied request that has ended, in the order of their ends."""

    def requests_ended(
        self, records: Sequence[RequestRecord], ended_at: Sequence[float], /
    ) -> None:
        """Take note of some. Must not raise.

        Args:
            records: one or more.
            ended_at: of each of them, seconds since 1970-01-01 UTC.
        """
        ...


class EndedRequests:
    """Collects them; a request costs two appends, and the rest is shared by many.

    Whoever shows or writes what comes of them calls `settle` first, so that nothing that is read
    lacks a request that has ended.
    """

    def __init__(self, *, wall_clock: Callable[[], float]) -> None:
        """Tell nobody yet; `wall_clock` dates the ends, in seconds since 1970-01-01 UTC."""
        self._wall_clock = wall_clock
        self._observers: list[BatchObserver] = []
        self._records: list[RequestRecord] = []
        self._ended_at: list[float] = []

    def tell(self, observer: BatchObserver) -> None:
        """Tell this one, too, of what ends from now on."""
        self.settle()
        self._observers.append(observer)

    def request_ended(self, record: RequestRecord) -> None:
        """Take in one request."""
        records = self._records
        records.append(record)
        self._ended_at.append(self._wall_clock())
        if len(records) >= _TOLD_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Tell all of what has been collected."""
        records, ended_at = self._records, self._ended_at
        if not records:
            return
        self._records, self._ended_at = [], []
        for observer in self._observers:
            observer.requests_ended(records, ended_at)
