"""Which service goes next when requests of one priority compete under scarcity."""

from typing import Protocol

from gateway.scheduling.tracked_request import TrackedRequest


class ServiceOrder(Protocol):
    """Puts the heads of one priority's flows into the order in which they are to be served."""

    def ordered(self, heads: list[TrackedRequest], *, now: float) -> list[TrackedRequest]:
        """Return `heads` (one per service and target model), first to be served first."""
        ...


class FirstComeFirstServed:
    """The oldest original arrival first, whatever its service."""

    def ordered(self, heads: list[TrackedRequest], *, now: float) -> list[TrackedRequest]:
        """Sort by arrival; the sequence number breaks ties."""
        del now
        return sorted(heads, key=lambda head: (head.arrived_at, head.sequence))
