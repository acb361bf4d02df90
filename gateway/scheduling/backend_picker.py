"""Which of the open servers gets the request."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol

from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.model import BackendId
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest


class Candidate(NamedTuple):
    """One row of an explanation: a server, what choosing it would have cost, and why."""

    backend_id: BackendId
    cost: float
    reason: str


class Choice(NamedTuple):
    """The server picked, and the table of all that were compared."""

    backend: BackendState
    candidates: tuple[Candidate, ...]


class BackendPicker(Protocol):
    """Picks among open servers."""

    def pick(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> Choice:
        """Choose one of `backends` (at least one, all open to the request)."""
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

    def pick(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> Choice:
        """Choose the lowest cost; ties are drawn uniformly."""
        del now
        candidates = []
        best: list[BackendState] = []
        lowest = float("inf")
        for backend in backends:
            cost, reason = self._cost(tracked, backend)
            candidates.append(Candidate(backend.id, cost, reason))
            if cost < lowest:
                lowest = cost
                best = [backend]
            elif cost == lowest:
                best.append(backend)
        chosen = best[0] if len(best) == 1 else best[self._rng.randrange(len(best))]
        return Choice(chosen, tuple(candidates))

    def _cost(self, tracked: TrackedRequest, backend: BackendState) -> tuple[float, str]:
        outstanding = backend.sequences + backend.external_running
        adapter = backend.adapter_of(tracked.target)
        if adapter is None:
            return outstanding, "base model"
        if backend.adapters.is_resident(adapter):
            return outstanding, "adapter resident"
        slots = max(1, backend.adapters.max_loras)
        crowding = backend.adapters.slots_in_use / slots
        return outstanding + self._policy.cold_adapter_cost + crowding, "adapter to load"
