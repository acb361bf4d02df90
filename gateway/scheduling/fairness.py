"""Which service goes next when requests of one priority compete under scarcity."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

from gateway.scheduling.model import RequestPhase, ServiceName
from gateway.scheduling.policy import FairnessPolicy
from gateway.scheduling.slo_adherence import SloAdherence, error_budget
from gateway.scheduling.sub_flows import SubFlows
from gateway.scheduling.token_shares import TokenShares
from gateway.scheduling.tracked_request import TrackedRequest

_TOKENS_PER_OUTPUT: Final = 2
"""An output token costs about twice an input token (VTC, arXiv 2401.00588)."""


class ServiceOrder(Protocol):
    """Puts the heads of one lane's flows into the order in which they are to be served."""

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Yield `heads` (one per service and target model), first to be served first."""
        ...

    def goes_behind(self, tracked: TrackedRequest, *, now: float) -> bool:
        """Whether a request may not go before others that wait, even where they do not fit."""
        ...

    def waits(self, tracked: TrackedRequest, waiting: Collection[ServiceName]) -> None:
        """A request is about to wait; `waiting` are the services that have some waiting."""
        ...

    def served(self, tracked: TrackedRequest, *, output_tokens: int) -> None:
        """Charge a request: at dispatch its expected output, at its end what was more or less."""
        ...

    def refunded(self, tracked: TrackedRequest) -> None:
        """Take back what a dispatch was charged whose server failed."""
        ...


class FirstComeFirstServed:
    """The oldest original arrival first, whatever its service."""

    def goes_behind(self, tracked: TrackedRequest, *, now: float) -> bool:
        """No."""
        del tracked, now
        return False

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Sort by arrival; the sequence number breaks ties."""
        del now
        return sorted(heads, key=lambda head: (head.arrived_at, head.sequence))

    def waits(self, tracked: TrackedRequest, waiting: Collection[ServiceName]) -> None:
        """Nothing to note."""

    def served(self, tracked: TrackedRequest, *, output_tokens: int) -> None:
        """Nothing to note."""

    def refunded(self, tracked: TrackedRequest) -> None:
        """Nothing to note."""


class EarliestDeadlineFirst(FirstComeFirstServed):
    """The earliest end of a TTFT bound first."""

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Sort by deadline; the sequence number breaks ties."""
        del now
        return sorted(heads, key=_deadline)


class LeastServedFirst(FirstComeFirstServed):
    """The service that was served least, by weight; virtual counters as in VTC.

    Idle time banks nothing: a service that returns is lifted to the least of those that wait, and
    where none waits, none has been kept waiting, and all start anew.
    """

    def __init__(self, *, tokens_count: bool) -> None:
        """Count tokens, 1 per input and 2 per output token, or else requests."""
        self._tokens_count = tokens_count
        self._served: dict[ServiceName, float] = {}

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Sort by counter, then by arrival."""
        del now
        served = self._served
        return sorted(
            heads,
            key=lambda head: (served.get(head.service.name, 0.0), head.arrived_at, head.sequence),
        )

    def waits(self, tracked: TrackedRequest, waiting: Collection[ServiceName]) -> None:
        """Lift a service that had nothing waiting."""
        if not waiting:
            self._served.clear()
        name = tracked.service.name
        others = [self._served.get(other, 0.0) for other in waiting if other != name]
        if others and name not in waiting:
            self._served[name] = max(self._served.get(name, 0.0), min(others))

    def served(self, tracked: TrackedRequest, *, output_tokens: int) -> None:
        """Add the cost over the service's weight; the prompt is charged at dispatch."""
        begins = tracked.phase is RequestPhase.DISPATCHED
        self._charge(tracked, self._cost(tracked, output_tokens, begins=begins))

    def refunded(self, tracked: TrackedRequest) -> None:
        """Take the whole charge of the dispatch back; a counter is never below its start."""
        self._charge(tracked, -self._cost(tracked, tracked.expected_output_tokens, begins=True))

    def _cost(self, tracked: TrackedRequest, output_tokens: int, *, begins: bool) -> float:
        if self._tokens_count:
            return _TOKENS_PER_OUTPUT * output_tokens + (tracked.prompt_tokens if begins else 0)
        return 1.0 if begins else 0.0

    def _charge(self, tracked: TrackedRequest, cost: float) -> None:
        name = tracked.service.name
        before = self._served.get(name, 0.0)
        self._served[name] = max(0.0, before + cost / tracked.service.fairness_weight)


class LargestBurnFirst(FirstComeFirstServed):
    """The service that uses up most of its error budget; the order of SLO adherence.

    Among services whose adherence is within the tolerance of the worst, the earliest deadline
    goes first.
    """

    def __init__(self, *, policy: FairnessPolicy, adherence: SloAdherence) -> None:
        """Compare services by what `adherence` has counted."""
        self._tolerance = policy.tolerance
        self._adherence = adherence

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterator[TrackedRequest]:
        """Yield lazily: mostly only the first is asked for."""
        rest = []
        for head in sorted(heads, key=_deadline):
            service = head.service
            burn = self._adherence.burn(service, now=now)
            if head.impossible:  # no turn can mend what its service has missed
                burn = min(burn, service.fairness_weight)
            slack = service.fairness_weight * self._tolerance / error_budget(service)
            rest.append((burn, burn + slack, head))
        while rest:
            most = max([burn for burn, _, _ in rest])
            number = next(n for n, (_, at_most, _) in enumerate(rest) if at_most >= most)
            yield rest.pop(number)[2]


def _deadline(head: TrackedRequest) -> tuple[float, int]:
    return (head.arrived_at + head.ttft_bound_s, head.sequence)


class RailedOrder:
    """An order between services, with ceilings of their shares and turns inside each of them.

    Services above their `max_share` go after the others; inside a service its clients' flows take
    turns, where fairness ids are regarded.
    """

    def __init__(
        self, *, order: ServiceOrder, shares: TokenShares, sub_flows: SubFlows | None
    ) -> None:
        """Refine `order`; without `sub_flows` each service is served as that says."""
        self._order = order
        self._shares = shares
        self._sub_flows = sub_flows

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterator[TrackedRequest]:
        """Yield lazily, as the order inside may."""
        above = [head for head in heads if self._shares.is_above(head.service, now=now)]
        below = [head for head in heads if head not in above] if above else heads
        for some in (below, above):
            if self._sub_flows is None:
                yield from self._order.ordered(some, now=now)
            else:
                yield from self._in_turn(some, self._sub_flows, now)

    def goes_behind(self, tracked: TrackedRequest, *, now: float) -> bool:
        """Whether its service is above its share."""
        return self._shares.is_above(tracked.service, now=now)

    def waits(self, tracked: TrackedRequest, waiting: Collection[ServiceName]) -> None:
        """Tell the order inside."""
        self._order.waits(tracked, waiting)

    def served(self, tracked: TrackedRequest, *, output_tokens: int) -> None:
        """Tell the order inside; a dispatch counts for shares and flows, too."""
        if tracked.phase is RequestPhase.DISPATCHED:
            self._shares.dispatched(tracked, now=tracked.dispatched_at)
            if self._sub_flows is not None:
                self._sub_flows.served(tracked)
        self._order.served(tracked, output_tokens=output_tokens)

    def refunded(self, tracked: TrackedRequest) -> None:
        """Tell the order inside."""
        self._order.refunded(tracked)

    def _in_turn(
        self, heads: Sequence[TrackedRequest], sub_flows: SubFlows, now: float
    ) -> Iterator[TrackedRequest]:
        """Whenever it is a service's turn, the flow of it that has had least goes."""
        of_service: dict[ServiceName, list[TrackedRequest]] = {}
        for head in heads:
            of_service.setdefault(head.service.name, []).append(head)
        turns = {name: iter(sub_flows.in_turn(own)) for name, own in of_service.items()}
        for head in self._order.ordered(heads, now=now):
            yield next(turns[head.service.name])
