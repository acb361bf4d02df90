"""The requests that ended last, for whoever looks for one."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from heapq import nlargest
from itertools import islice
from types import MappingProxyType

import msgspec

from gateway.telemetry.ended_requests import EndedRequests
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
    """A record, and when its request ended: seconds since 1970-01-01 UTC."""

    record: RequestRecord
    ended_at: float


class RecentRequests:
    """A bounded ring; everything but keeping waits until somebody asks."""

    def __init__(self, *, ended: EndedRequests, kept: int = 2_000) -> None:
        """Keep the last `kept` requests of those that end from now on; 2,000 take about 2 MB."""
        self._ended = ended
        self._ring: deque[EndedRequest] = deque(maxlen=kept)
        ended.tell(self)

    def __len__(self) -> int:
        """How many are kept."""
        self._ended.settle()
        return len(self._ring)

    def requests_ended(
        self, records: Sequence[RequestRecord], ended_at: Sequence[float], /
    ) -> None:
        """Keep some requests; the oldest give way."""
        self._ring.extend(map(EndedRequest, map(_bounded, records), ended_at))

    def first(
        self, *, limit: int, words: str = "", order: RequestOrder = RequestOrder.NEWEST
    ) -> list[EndedRequest]:
        """The first `limit` of those that hold every one of `words`.

        A word is looked for, whatever its case, in ids, service, models, server, outcome, status
        and reason. Orders other than the newest start with the largest figure, and leave out
        requests that have none.
        """
        self._ended.settle()
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
        self._ended.settle()
        for ended in reversed(self._ring):
            if request_id in (ended.record.lease_id, ended.record.request_id):
                return ended
        return None


def _bounded(record: RequestRecord) -> RequestRecord:
    """With the only text cut that has no bound of its own."""
    if len(record.path) <= _LONGEST_PATH:
        return record
    return msgspec.structs.replace(record, path=record.path[:_LONGEST_PATH])


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
