"""The requests that ended last, for whoever looks for one."""

from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from heapq import nlargest
from itertools import islice
from types import MappingProxyType

import msgspec

from gateway.telemetry.request_record import RequestRecord

_LONGEST_PATH = 256


class RequestOrder(StrEnum):
    """Which requests come first."""

    NEWEST = "newest"
    WAIT = "wait"
    TTFT = "ttft"
    TPOT = "tpot"
    TOTAL = "total"


_FIGURES: MappingProxyType[RequestOrder, Callable[[RequestRecord], float | None]] = (
    MappingProxyType(
        {
            RequestOrder.WAIT: lambda record: record.queue_s if record.attempts else record.e2e_s,
            RequestOrder.TTFT: lambda record: record.ttft_s,
            RequestOrder.TPOT: lambda record: record.tpot_s,
            RequestOrder.TOTAL: lambda record: record.e2e_s,
        }
    )
)
"""What the other orders go by; a request that was never sent to a server waited all its time."""


class EndedRequest(msgspec.Struct, frozen=True, gc=False):
    """A record, and when it was made: seconds since 1970-01-01 UTC."""

    ended_at: float
    record: RequestRecord


class RecentRequests:
    """A bounded ring; a request costs one append, and everything else waits until somebody asks."""

    def __init__(self, *, wall_clock: Callable[[], float], kept: int = 2_000) -> None:
        """Keep the last `kept` requests, dated by `wall_clock`; 2,000 take about 2 MB."""
        self._wall_clock = wall_clock
        self._ring: deque[EndedRequest] = deque(maxlen=kept)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._ring)

    def request_ended(self, record: RequestRecord) -> None:
        """Keep one request; the oldest gives way."""
        if len(record.path) > _LONGEST_PATH:  # the only text of a record without a bound of its own
            record = msgspec.structs.replace(record, path=record.path[:_LONGEST_PATH])
        self._ring.append(EndedRequest(self._wall_clock(), record))

    def first(
        self, *, limit: int, words: str = "", order: RequestOrder = RequestOrder.NEWEST
    ) -> list[EndedRequest]:
        """The first `limit` of those that hold every one of `words`.

        A word is looked for, whatever its case, in ids, service, models, server, outcome, status
        and reason. Orders other than the newest start with the largest figure, and leave out
        requests that have none.
        """
        found = self._holding(words.casefold().split())
        figure = _FIGURES.get(order)
        if figure is None:
            return list(islice(found, limit))
        valued = [(value, each) for each in found if (value := figure(each.record)) is not None]
        return [each for _, each in nlargest(limit, valued, key=lambda pair: pair[0])]

    def _holding(self, wanted: list[str]) -> Iterator[EndedRequest]:
        """Newest first."""
        for ended in reversed(self._ring):
            if not wanted or _holds(ended.record, wanted):
                yield ended

    def find(self, request_id: str) -> EndedRequest | None:
        """The newest request of this id, the gateway's own or the X-Request-Id."""
        for ended in reversed(self._ring):
            if request_id in (ended.record.lease_id, ended.record.request_id):
                return ended
        return None


def _holds(record: RequestRecord, words: list[str]) -> bool:
    fields = (
        record.lease_id,
        record.request_id,
        record.service,
        record.model,
        record.target_model,
        record.backend_id,
        record.outcome,
        record.reason,
        str(record.status),
    )
    text = "\n".join([field for field in fields if field]).casefold()
    return all(word in text for word in words)
