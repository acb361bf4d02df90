"""First sight of many servers: which of them deserve a full forecast, the best first."""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop
from random import Random

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.first_sight import FirstSight
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_MANY = 100
"""Above so many servers only a sample of them is looked at, ..."""
_SAMPLE = 64
"""... of so many, and of as many holders of the adapter."""


class Shortlist:
    """Puts servers in order of their costs at first sight."""

    def __init__(
        self,
        *,
        predictor: LatencyPredictor,
        capacity: Capacity,
        ledger: BackendLedger,
        policy: PickerPolicy,
        rng: Random,
    ) -> None:
        """Take glances from `predictor`, margins from `capacity`, and prices from `policy`.

        Samples are drawn from `rng`; `ledger` knows who holds an adapter.
        """
        self._predictor = predictor
        self._ledger = ledger
        self._rng = rng
        self._first_sight = FirstSight(predictor=predictor, capacity=capacity, policy=policy)

    def batches(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> Iterator[Iterator[BackendState]]:
        """All of `backends` but those that are surely closed to the request, the best first.

        Of very many, a sample comes first; the rest matters only where none of it is open.
        """
        if len(backends) > _MANY:
            yield self._best_first(tracked, self._sample(tracked, backends), now)
        yield self._best_first(tracked, backends, now)

    def soonest(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> BackendState:
        """The one of `backends`, at least one, that would give the first token soonest.

        Of very many, the one of a sample.
        """
        tokens = tracked.prompt_tokens

        def ttft_s(backend: BackendState) -> float:
            glance = self._predictor.glance(backend, now=now)
            return glance.ttft_s + tokens * glance.ttft_per_token_s

        return min(self._window(backends), key=ttft_s)

    def _sample(
        self, tracked: TrackedRequest, backends: Sequence[BackendState]
    ) -> Sequence[BackendState]:
        """Neighbours of a random server, and holders of the adapter; each at most once."""
        sample = {backend.id: backend for backend in self._window(backends)}
        if tracked.target in backends[0].lora_models:
            for backend in self._window(self._ledger.holding(tracked.target)):
                if not backend.failed(tracked):
                    sample[backend.id] = backend
        return tuple(sample.values())

    def _window(self, backends: Sequence[BackendState]) -> Sequence[BackendState]:
        if len(backends) <= _MANY:
            return backends
        start = self._rng.randrange(len(backends))
        window = backends[start : start + _SAMPLE]
        return [*window, *backends[: _SAMPLE - len(window)]]

    def _best_first(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], now: float
    ) -> Iterator[BackendState]:
        order = self._first_sight.costs(tracked, backends, now=now)
        heapify(order)
        while order:
            yield backends[heappop(order)[1]]
