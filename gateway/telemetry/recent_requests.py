"""The requests that ended last, for whoever looks for one."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from heapq import nlargest
from itertools import islice
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.request_record import RequestRecord

_LONGEST_PATH: Final = 256


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


class EndedRequest(NamedTuple):
    """A record, and when its request ended: seconds since 1970-01-01 UTC."""

    record: RequestRecord
    ended_at: float


class RecentRequests:
    """A bounded ring; everything but keeping waits until somebody asks."""

    def __init__(self, *, ended: EndedRequests, kept: int = 2_000) -> None:
        """Keep the last `kept` requests of those that end from now on; 2,000 take about 2 MB."""
        self._ended = ended
        # Side by side, so that a request that ends needs no object of its own here.
        self._records: deque[RequestRecord] = deque(maxlen=kept)
        self._ended_at: deque[float] = deque(maxlen=kept)
        ended.tell(self)

    def __len__(self) -> int:
        """How many are kept."""
        self._ended.settle()
        return len(self._records)

    def requests_ended(
        self, records: Sequence[RequestRecord], ended_at: Sequence[float], /
    ) -> None:
        """Keep some requests; the oldest give way."""
        for record in records:
            self._records.append(record if len(record.path) <= _LONGEST_PATH else _bounded(record))
        self._ended_at.extend(ended_at)

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
        for ended in self._newest_first():
            if not wanted or _holds(ended.record, wanted):
                yield ended

    def _newest_first(self) -> Iterator[EndedRequest]:
        return map(EndedRequest, reversed(self._records), reversed(self._ended_at))

    def find(self, request_id: str) -> EndedRequest | None:
        """The newest request of this id, the gateway's own or the X-Request-Id."""
        self._ended.settle()
        for ended in self._newest_first():
            if request_id in (ended.record.lease_id, ended.record.request_id):
                return ended
        return None


def _bounded(record: RequestRecord) -> RequestRecord:
    """With the only text cut that has no bound of its own."""
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
