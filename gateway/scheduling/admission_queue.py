"""Requests that wait: lanes, in each a flow per service, target model, servers tried and sub-flow.

Lanes are served in order: Critical requests that can still meet their objective, highest priority
first; late Critical ones; Non-Critical ones, highest priority first.

Inside a flow the order is first come first served by original arrival. A flow is as fine as the
target model because openness is a property of the request's adapter: a head that must wait for a
slot then holds up only requests that would wait for the same slot. For the same reason requests
that come back from a failed server wait apart from those that may still go there, and those whose
prompt one server holds apart from others.

Removal is lazy: an entry whose request has left QUEUED is dropped when it surfaces, and heaps are
rebuilt when most of them is dead, so every operation is O(log n) amortised.
"""

import sys
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from gateway.scheduling.model import BackendId, RequestPhase, ServiceName, is_critical
from gateway.scheduling.policy import QueuePolicy
from gateway.scheduling.tracked_request import TrackedRequest

_FlowKey = tuple[str, str, tuple[tuple[BackendId, int], ...], int, BackendId | None]
_Entry = tuple[float, float, int, int, TrackedRequest]

Lane = tuple[int, int]
"""(class, priority); see `lane_of`. Larger ones go first."""

ON_TIME, LATE, NON_CRITICAL = 2, 1, 0
"""Classes of lanes."""

LAST_LANE: Lane = (NON_CRITICAL, -sys.maxsize)
"""None goes behind it."""

_COMPACT_ABOVE: Final = 64


class _LazyHeap:
    """A heap of requests by a pair of keys that forgets those no longer queued.

    An entry is of one stay in the queue, and holds its number. The number of the push keeps
    entries of equal keys from being compared further.
    """

    __slots__ = ("_entries", "_key", "_pushes")

    def __init__(self, key: Callable[[TrackedRequest], tuple[float, float]]) -> None:
        self._key = key
        self._entries: list[_Entry] = []
        self._pushes = 0

    def push(self, tracked: TrackedRequest, *, live: int) -> None:
        if len(self._entries) > 2 * live + _COMPACT_ABOVE:
            self._entries = [entry for entry in self._entries if _is_live(entry)]
            heapify(self._entries)
        first, second = self._key(tracked)
        self._pushes += 1
        heappush(self._entries, (first, second, self._pushes, tracked.stay, tracked))

    def first(self) -> TrackedRequest | None:
        entries = self._entries
        while entries:
            if _is_live(entries[0]):
                return entries[0][4]
            heappop(entries)
        return None

    def drop_first(self) -> None:
        heappop(self._entries)


def _is_live(entry: _Entry) -> bool:
    tracked = entry[4]
    return tracked.phase is RequestPhase.QUEUED and tracked.stay == entry[3]


def _by_arrival(tracked: TrackedRequest) -> tuple[float, float]:
    return (tracked.arrived_at, tracked.sequence)


def _by_expiry(tracked: TrackedRequest) -> tuple[float, float]:
    return (tracked.expires_at, tracked.sequence)


def _by_lateness(tracked: TrackedRequest) -> tuple[float, float]:
    return (tracked.late_at, tracked.sequence)


def lane_of(tracked: TrackedRequest) -> Lane:
    """The lane in which a request waits."""
    priority = tracked.service.priority
    if not is_critical(priority):
        return (NON_CRITICAL, priority)
    return (LATE if tracked.late else ON_TIME, priority)


def _least_entitled(tracked: TrackedRequest) -> tuple[float, float]:
    return (tracked.service.priority, -tracked.sequence)


def _flow_key(tracked: TrackedRequest) -> _FlowKey:
    return (tracked.service.name, tracked.target, tracked.tried, tracked.sub_flow, tracked.home)


class _Flow:
    __slots__ = ("heap", "live")

    def __init__(self) -> None:
        self.heap = _LazyHeap(_by_arrival)
        self.live = 0


class AdmissionQueue:
    """The waiting requests of one pool. The caller sets phases; the queue counts and orders.

    Attributes:
        requests, bytes: of all that wait; `critical_requests`, `critical_bytes` of Critical ones.
    """

    def __init__(self, *, policy: QueuePolicy) -> None:
        """Start empty, with the limits of `policy`."""
        self._policy = policy
        self._lanes: dict[Lane, dict[_FlowKey, _Flow]] = {}
        self._by_lateness = _LazyHeap(_by_lateness)
        self._by_expiry = _LazyHeap(_by_expiry)
        self._displaceable = _LazyHeap(_least_entitled)
        self.requests = 0
        self.bytes = 0
        self.critical_requests = 0
        self.critical_bytes = 0

    def reconfigure(self, policy: QueuePolicy) -> None:
        """Change the limits for arrivals from now on."""
        self._policy = policy

    def has_room(self, tracked: TrackedRequest) -> bool:
        """Whether the request fits every limit as things stand."""
        size = tracked.request.body_bytes
        policy = self._policy
        if self.requests >= policy.max_requests or self.bytes + size > policy.max_bytes:
            return False
        return (
            is_critical(tracked.service.priority)
            or self.requests - self.critical_requests < policy.max_non_critical_requests
        )

    def displaced_by(self, tracked: TrackedRequest) -> TrackedRequest | None:
        """The request to give up so that a Critical one gets in, or None.

        It is the newest of the lowest Non-Critical level. None as well where giving up every
        Non-Critical request would not make room.
        """
        size = tracked.request.body_bytes
        policy = self._policy
        if (
            not is_critical(tracked.service.priority)
            or self.critical_requests >= policy.max_requests
            or self.critical_bytes + size > policy.max_bytes
        ):
            return None
        return self._displaceable.first()

    def push(self, tracked: TrackedRequest) -> None:
        """Add a request in QUEUED; a returning one takes its place by original arrival."""
        tracked.stay += 1
        self.requests += 1
        self.bytes += tracked.request.body_bytes
        if is_critical(tracked.service.priority):
            self.critical_requests += 1
            self.critical_bytes += tracked.request.body_bytes
        else:
            self._displaceable.push(tracked, live=self.requests)
        self._by_expiry.push(tracked, live=self.requests)
        if not tracked.late:
            self._by_lateness.push(tracked, live=self.requests)
        lane = self._lanes.setdefault(lane_of(tracked), {})
        key = _flow_key(tracked)
        flow = lane.get(key)
        if flow is None:
            flow = lane[key] = _Flow()
        flow.live += 1
        flow.heap.push(tracked, live=flow.live)

    def forget(self, tracked: TrackedRequest) -> None:
        """Take a request off the counts; call it once, when its phase is to leave QUEUED."""
        self.requests -= 1
        self.bytes -= tracked.request.body_bytes
        if is_critical(tracked.service.priority):
            self.critical_requests -= 1
            self.critical_bytes -= tracked.request.body_bytes
        lane = self._lanes[lane_of(tracked)]
        key = _flow_key(tracked)
        flow = lane[key]
        flow.live -= 1
        if not flow.live:
            del lane[key]
            if not lane:
                del self._lanes[lane_of(tracked)]

    def make_late(self, tracked: TrackedRequest) -> None:
        """Move a waiting request to its late lane (of Non-Critical ones there is none)."""
        self.forget(tracked)
        tracked.late = True
        self.push(tracked)

    def has_flow(self, tracked: TrackedRequest) -> bool:
        """Whether older requests of the same flow wait already."""
        lane = self._lanes.get(lane_of(tracked))
        return lane is not None and _flow_key(tracked) in lane

    def take_head(self, head: TrackedRequest) -> TrackedRequest | None:
        """Take the first of a flow off; return the one that comes first after it, or None."""
        flow = self._lanes[lane_of(head)][_flow_key(head)]
        flow.heap.drop_first()
        self.forget(head)
        return flow.heap.first()

    def lanes(self) -> list[Lane]:
        """Lanes in which requests wait, first to be served first."""
        return sorted(self._lanes, reverse=True)

    def heads(self, lane: Lane) -> list[TrackedRequest]:
        """The first request of every flow of a lane."""
        heads = []
        for flow in self._lanes[lane].values():
            head = flow.heap.first()
            assert head is not None, "a flow without requests is dropped"
            heads.append(head)
        return heads

    def waiting_services(self) -> dict[ServiceName, None]:
        """Services that have requests waiting."""
        return {ServiceName(key[0]): None for lane in self._lanes.values() for key in lane}

    def next_late_at(self) -> float | None:
        """When the next waiting request becomes late, or None."""
        first = self._by_lateness.first()
        return None if first is None or first.late_at == float("inf") else first.late_at

    def first_late(self, *, now: float) -> TrackedRequest | None:
        """A request that has become late and was not noticed yet, or None."""
        first = self._by_lateness.first()
        return first if first is not None and first.late_at <= now else None

    def next_expiry_at(self) -> float | None:
        """When the first waiting request gives up, or None."""
        first = self._by_expiry.first()
        return None if first is None else first.expires_at

    def first_expired(self, *, now: float) -> TrackedRequest | None:
        """A request whose wait is over, or None."""
        first = self._by_expiry.first()
        return first if first is not None and first.expires_at <= now else None

    def depth_by_service(self) -> dict[tuple[int, str], int]:
        """Waiting requests per (priority, service)."""
        depths: dict[tuple[int, str], int] = {}
        for (_, priority), lane in self._lanes.items():
            for (service, *_), flow in lane.items():
                depths[priority, service] = depths.get((priority, service), 0) + flow.live
        return depths
