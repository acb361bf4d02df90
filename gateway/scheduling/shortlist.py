"""First sight of many servers: which of them deserve a full forecast, the best first."""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop
from random import Random
from typing import Final

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.bounds import picking_bounds
from gateway.scheduling.capacity import Capacity, exceeds
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.outlook import NO_GLANCE
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_MANY: Final = 100
"""Above so many servers only a sample of them is looked at, ..."""
_SAMPLE: Final = 64
"""... of so many, and of as many holders of the adapter."""


class Shortlist:
    """Puts servers in order of a rough cost: the picker's headroom and prices, without misses."""

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
        self._capacity = capacity
        self._policy = policy

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
        order = self._costs(tracked, backends, now)
        heapify(order)
        while order:
            yield backends[heappop(order)[1]]

    def _costs(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], now: float
    ) -> list[tuple[float, int]]:
        glance = self._predictor.glance
        target = tracked.target
        own = tracked.prompt_tokens
        context = own + tracked.expected_output_tokens / 2
        ttft_s, tpot_s = picking_bounds(tracked)
        per_budget = 1.0 / max(0.001, ttft_s - (now - tracked.arrived_at))
        bound_s = float("inf") if tracked.tpot_bound_s is None else tracked.tpot_bound_s
        per_bound = 0.0 if tpot_s is None else 1.0 / tpot_s
        margin = self._capacity.margin_of(tracked)
        slot_price = 0.0
        if target in backends[0].lora_models:
            crowding = sum([backend.adapters.crowding for backend in backends]) / len(backends)
            slot_price = self._policy.slot_price * min(1.0, crowding)
        prefill_price = own * self._policy.prefill_price_per_s
        order: list[tuple[float, int]] = []
        for number, backend in enumerate(backends):
            if now >= backend.fresh_until or backend.glance is NO_GLANCE:
                glance(backend, now=now)
            ttft_s, ttft_per_token_s, tpot_s, tpot_per_token_s, certain, per_prefill_token_s = (
                backend.glance
            )
            tpot_s += context * tpot_per_token_s
            others_s = backend.strictest_tpot_s
            strictest_s = bound_s if bound_s < others_s else others_s  # noqa: FURB136 - hot
            if (
                tpot_s * certain > margin * strictest_s
                and backend.in_flight
                and not exceeds(backend, tracked)
            ):
                continue
            ttft_ratio = (ttft_s + own * ttft_per_token_s) * per_budget
            tpot_ratio = tpot_s * per_bound
            cost = ttft_ratio if ttft_ratio > tpot_ratio else tpot_ratio  # noqa: FURB136 - hot
            cost += prefill_price * per_prefill_token_s
            if target in backend.lora_models:
                adapters = backend.adapters
                active = adapters.active.get(target, 0)
                if not active and adapters.crowding >= 1.0 and not adapters.admits(target):
                    continue
                cost += slot_price / (1.0 + active)
            order.append((cost, number))
        return order
