"""Which of the open servers gets the request."""

from array import array
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple, Protocol

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.model import BackendId
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_MOST_FAILING: Final = 0.95


class Candidate(NamedTuple):
    """One row of an explanation: a server, what choosing it would have cost, and why."""

    backend_id: BackendId
    cost: float
    ttft_s: float
    tpot_s: float
    reason: str


class Choice:
    """The server picked, and what it was compared with: open servers and the cost of each.

    `adapter` is the one that the request needs there, or None.
    """

    __slots__ = ("adapter", "costs", "server", "servers")

    def __init__(
        self,
        server: OpenServer,
        servers: Sequence[OpenServer],
        costs: Sequence[float],
        adapter: str | None,
    ) -> None:
        """Take them."""
        self.server = server
        self.servers = servers
        self.costs = costs
        self.adapter = adapter

    @property
    def figures(self) -> Sequence[float]:
        """Of each server, one after the other: cost, TTFT, TPOT, and 1 if an adapter is to load.

        As one block of memory: of every request it is kept for a while, and what is freed when
        nobody has touched it for long costs by the object.
        """
        figures: list[float] = []
        costs = self.costs
        for number, server in enumerate(self.servers):
            prediction = server.prediction
            figures.append(costs[number])
            figures.append(prediction.ttft_s)
            figures.append(prediction.tpot_s)
            figures.append(1.0 if prediction.cold_adapter else 0.0)
        return array("d", figures)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The comparison as a table."""
        backends = [server.backend for server in self.servers]
        return table_of(backends, self.figures, self.adapter)


def table_of(
    backends: Sequence[BackendState], figures: Sequence[float], adapter: str | None
) -> tuple[Candidate, ...]:
    """The table of a comparison; `figures` as in Choice."""
    rows = []
    for number, backend in enumerate(backends):
        cost, ttft_s, tpot_s, cold = figures[4 * number : 4 * number + 4]
        reason = "adapter to load" if cold else "adapter resident"
        rows.append(
            Candidate(backend.id, cost, ttft_s, tpot_s, reason if adapter else "base model")
        )
    return tuple(rows)


class BackendPicker(Protocol):
    """Picks among open servers."""

    def pick(self, tracked: TrackedRequest, servers: Sequence[OpenServer], *, now: float) -> Choice:
        """Choose one of `servers` (at least one, all open to the request)."""
        ...


class LeastOutstandingPicker:
    """Fewest sequences in flight, with affinity to servers that hold the adapter.

    An adapter that would have to be loaded counts as `cold_adapter_cost` sequences, and a slot
    taken from the last free ones as a fraction of one, so that loads go where slots are free.
    """

    def __init__(self, *, policy: PickerPolicy, rng: Random) -> None:
        """Take costs from `policy`; equal costs are drawn from `rng`."""
        self._policy = policy
        self._rng = rng

    def pick(self, tracked: TrackedRequest, servers: Sequence[OpenServer], *, now: float) -> Choice:
        """Choose the lowest cost; ties are drawn uniformly."""
        del now
        costs = [self._cost(tracked, server.backend) for server in servers]
        return lowest(tracked, servers, costs, self._rng)

    def _cost(self, tracked: TrackedRequest, backend: BackendState) -> float:
        outstanding = backend.sequences + backend.external_running
        if backend.failure_rate:
            # What fails is tried again: each request costs as many attempts as one takes here.
            outstanding = (outstanding + 1.0) / (1.0 - min(_MOST_FAILING, backend.failure_rate))
        adapter = backend.adapter_of(tracked.target)
        if adapter is None or backend.adapters.is_resident(adapter):
            return outstanding
        return outstanding + self._policy.cold_adapter_cost + backend.adapters.crowding


def lowest(
    tracked: TrackedRequest,
    servers: Sequence[OpenServer],
    costs: Sequence[float],
    rng: Random,
    *,
    tolerance: float = 0.0,
) -> Choice:
    """The server of the lowest cost; those within a share of it are drawn from uniformly."""
    limit = min(costs)
    limit += tolerance * abs(limit)
    best = [number for number, cost in enumerate(costs) if cost <= limit]
    chosen = servers[best[0] if len(best) == 1 else best[_below(len(best), rng)]]
    return Choice(chosen, servers, costs, chosen.backend.adapter_of(tracked.target))


def _below(count: int, rng: Random) -> int:
    """One of so many numbers: `randrange`, which costs as much as a forecast for a server."""
    bits = count.bit_length()
    drawn = rng.getrandbits(bits)
    while drawn >= count:
        drawn = rng.getrandbits(bits)
    return drawn
