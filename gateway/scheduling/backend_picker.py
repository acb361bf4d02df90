"""Which of the open servers gets the request."""

from collections.abc import Sequence
from math import exp, log
from random import Random
from typing import NamedTuple, Protocol

from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.model import BackendId
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.tracked_request import TrackedRequest

_P90_SIGMAS = 1.2816
_LOGISTIC = 1.702
"""Scale that brings the logistic function within .01 of the normal distribution."""
_FLAT = 40.0
"""Beyond this many units the logistic function is 0 or 1 in floating point."""
_OUTSTANDING_PRICE = 0.05
"""Cost of as many sequences in flight as the busiest candidate has: it decides where forecasts
hardly differ, and brings traffic, and with it new samples, to a server that once was slow. It
counts for base models only: an adapter that is spread over servers takes slots from others."""
_REMAINING_TOKENS = 100.0
"""About what a running request still has to decode; a prefill's stall is spread over them."""


class Candidate(NamedTuple):
    """One row of an explanation: a server, what choosing it would have cost, and why."""

    backend_id: BackendId
    cost: float
    ttft_s: float
    tpot_s: float
    reason: str


class Choice(NamedTuple):
    """The server picked, and the table of all that were compared."""

    server: OpenServer
    candidates: tuple[Candidate, ...]


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
        rows = []
        for backend, prediction in servers:
            cost, reason = self._cost(tracked, backend)
            rows.append(Candidate(backend.id, cost, prediction.ttft_s, prediction.tpot_s, reason))
        return _lowest(servers, rows, self._rng, tolerance=0.0)

    def _cost(self, tracked: TrackedRequest, backend: BackendState) -> tuple[float, str]:
        outstanding = backend.sequences + backend.external_running
        adapter = backend.adapter_of(tracked.target)
        if adapter is None:
            return outstanding, "base model"
        if backend.adapters.is_resident(adapter):
            return outstanding, "adapter resident"
        return (
            outstanding + self._policy.cold_adapter_cost + backend.adapters.crowding,
            "adapter to load",
        )


class LatencyPicker:
    """Fewest expected misses, then most headroom, then the least taken from the pool.

    The cost is `miss_cost * (probability that this request misses + misses it causes to those
    running there) + max(TTFT / budget, TPOT / bound) + price of an adapter slot`, and a little for
    what is in flight there.
    """

    def __init__(self, *, policy: PickerPolicy, rng: Random) -> None:
        """Take prices from `policy`; near-ties are drawn from `rng`."""
        self._policy = policy
        self._rng = rng

    def pick(self, tracked: TrackedRequest, servers: Sequence[OpenServer], *, now: float) -> Choice:
        """Choose the lowest cost; those within the tolerance of it are drawn uniformly."""
        scarcity = min(1.0, sum(s.backend.adapters.crowding for s in servers) / len(servers))
        budget_s = max(0.001, tracked.ttft_bound_s - (now - tracked.arrived_at))
        most = max(s.backend.sequences + s.backend.external_running for s in servers)
        price = _OUTSTANDING_PRICE / (1.0 + most)
        rows = []
        for backend, prediction in servers:
            cost, reason = self._cost(tracked, backend, prediction, budget_s, scarcity)
            if backend.adapter_of(tracked.target) is None:
                cost += price * (backend.sequences + backend.external_running)
            rows.append(Candidate(backend.id, cost, prediction.ttft_s, prediction.tpot_s, reason))
        return _lowest(servers, rows, self._rng, tolerance=self._policy.tie_tolerance)

    def _cost(
        self,
        tracked: TrackedRequest,
        backend: BackendState,
        prediction: Prediction,
        budget_s: float,
        scarcity: float,
    ) -> tuple[float, str]:
        ttft_ratio = prediction.ttft_s / budget_s
        misses = _miss_probability(ttft_ratio, prediction.ttft_p90_s / prediction.ttft_s)
        headroom = ttft_ratio
        tpot_spread = prediction.tpot_p90_s / prediction.tpot_s
        if tracked.tpot_bound_s is not None:
            tpot_ratio = prediction.tpot_s / tracked.tpot_bound_s
            misses += _miss_probability(tpot_ratio, tpot_spread)
            headroom = max(headroom, tpot_ratio)
        if backend.tpot_bounds:
            strictest_s = min(backend.tpot_bounds)
            after = _miss_probability(prediction.tpot_s / strictest_s, tpot_spread)
            stall_s = prediction.own_prefill_s / _REMAINING_TOKENS
            before_s = max(0.001, prediction.tpot_s - prediction.own_step_s - stall_s)
            before = _miss_probability(before_s / strictest_s, tpot_spread)
            misses += backend.decoding * (after - before)
        cost = self._policy.miss_cost * misses + headroom
        cost += self._policy.prefill_price_per_s * prediction.own_prefill_s
        adapter = backend.adapter_of(tracked.target)
        if adapter is None:
            return cost, "base model"
        active = backend.adapters.active.get(adapter, 0)
        cost += self._policy.slot_price * scarcity / (1.0 + active)
        if backend.adapters.is_resident(adapter):
            return cost, "adapter resident"
        return cost + self._policy.load_price, "adapter to load"


def miss_probability(tracked: TrackedRequest, prediction: Prediction, *, now: float) -> float:
    """Probability that a request dispatched now misses its service's objective."""
    objective = tracked.service.objective
    if objective is None:
        return 0.0
    budget_s = tracked.ttft_bound_s - (now - tracked.arrived_at)
    if budget_s <= 0.0:
        return 1.0
    late = _miss_probability(
        prediction.ttft_s / budget_s, prediction.ttft_p90_s / prediction.ttft_s
    )
    if tracked.tpot_bound_s is None:
        return late
    slow = _miss_probability(
        prediction.tpot_s / tracked.tpot_bound_s, prediction.tpot_p90_s / prediction.tpot_s
    )
    return 1.0 - (1.0 - late) * (1.0 - slow)


def _miss_probability(ratio: float, p90_over_median: float) -> float:
    """Probability that a lognormal time of this median, relative to its bound, is above 1."""
    sigma = log(p90_over_median) / _P90_SIGMAS
    z = _LOGISTIC * log(ratio) / sigma
    return 1.0 / (1.0 + exp(-max(-_FLAT, min(_FLAT, z))))


def _lowest(
    servers: Sequence[OpenServer], rows: Sequence[Candidate], rng: Random, *, tolerance: float
) -> Choice:
    limit = min(row.cost for row in rows)
    limit += tolerance * abs(limit)
    best = [number for number, row in enumerate(rows) if row.cost <= limit]
    chosen = best[0] if len(best) == 1 else best[rng.randrange(len(best))]
    return Choice(servers[chosen], tuple(rows))
