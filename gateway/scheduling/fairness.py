"""Which service goes next when requests of one priority compete under scarcity."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from gateway.scheduling.model import RequestPhase, ServiceName
from gateway.scheduling.policy import FairnessPolicy
from gateway.scheduling.slo_adherence import SloAdherence, error_budget
from gateway.scheduling.tracked_request import TrackedRequest

_TOKENS_PER_OUTPUT = 2
"""An output token costs about twice an input token (VTC, arXiv 2401.00588)."""


class ServiceOrder(Protocol):
    """Puts the heads of one lane's flows into the order in which they are to be served."""

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Yield `heads` (one per service and target model), first to be served first."""
        ...

    def waits(self, tracked: TrackedRequest, waiting: Collection[ServiceName]) -> None:
        """A request is about to wait; `waiting` are the services that have some waiting."""
        ...

    def served(self, tracked: TrackedRequest, *, output_tokens: int) -> None:
        """Charge a request: at dispatch its expected output, at its end what was more or less."""
        ...


class FirstComeFirstServed:
    """The oldest original arrival first, whatever its service."""

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Sort by arrival; the sequence number breaks ties."""
        del now
        return sorted(heads, key=lambda head: (head.arrived_at, head.sequence))

    def waits(self, tracked: TrackedRequest, waiting: Collection[ServiceName]) -> None:
        """Nothing to note."""

    def served(self, tracked: TrackedRequest, *, output_tokens: int) -> None:
        """Nothing to note."""


class EarliestDeadlineFirst(FirstComeFirstServed):
    """The earliest end of a TTFT bound first."""

    def ordered(self, heads: Sequence[TrackedRequest], *, now: float) -> Iterable[TrackedRequest]:
        """Sort by deadline; the sequence number breaks ties."""
        del now
        return sorted(heads, key=_deadline)


class LeastServedFirst:
    """The service that was served least, by weight; virtual counters as in VTC.

    Idle time banks nothing: a service that returns is lifted to the least of those that wait, and
    where none waits, none has been kept waiting, and all start anew.
    """

    def __init__(self, *, cost: Callable[[TrackedRequest, int], float]) -> None:
        """`cost` of a request with so many output tokens."""
        self._cost = cost
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
        """Add the cost over the service's weight."""
        name = tracked.service.name
        cost = self._cost(tracked, output_tokens) / tracked.service.fairness_weight
        self._served[name] = self._served.get(name, 0.0) + cost


def token_cost(tracked: TrackedRequest, output_tokens: int) -> float:
    """1 per input and 2 per output token; the input is charged at dispatch."""
    prompt_tokens = tracked.prompt_tokens if _begins(tracked) else 0
    return _TOKENS_PER_OUTPUT * output_tokens + prompt_tokens


def request_cost(tracked: TrackedRequest, output_tokens: int) -> float:
    """1 per request, charged at dispatch."""
    del output_tokens
    return 1.0 if _begins(tracked) else 0.0


def _begins(tracked: TrackedRequest) -> bool:
    """Whether the request is charged for its dispatch; what its end corrects comes later."""
    return tracked.phase is RequestPhase.DISPATCHED


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
            slack = service.fairness_weight * self._tolerance / error_budget(service)
            rest.append((burn, burn + slack, head))
        while rest:
            most = max([burn for burn, _, _ in rest])
            number = next(n for n, (_, at_most, _) in enumerate(rest) if at_most >= most)
            yield rest.pop(number)[2]


def _deadline(head: TrackedRequest) -> tuple[float, int]:
    return (head.arrived_at + head.ttft_bound_s, head.sequence)
