"""The server where the request and those already there are most likely to meet their objectives."""

from collections.abc import Sequence
from random import Random

from gateway.scheduling.backend_picker import Choice, lowest
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.bounds import picking_bounds
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.miss_risk import exceeding
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_OUTSTANDING_PRICE = 0.05
"""Cost of as many sequences in flight as the busiest candidate has: it decides where forecasts
hardly differ, and brings traffic, and with it new samples, to a server that once was slow. It
counts for base models only: an adapter that is spread over servers takes slots from others."""
_FULL_TRUST = 0.8
"""Mean trust in the candidates' forecasts above which they alone decide; see forecast_error.py."""
_REMAINING_TOKENS = 100.0
"""About what a running request still has to decode; a prefill's stall is spread over them."""


class LatencyPicker:
    """Fewest expected misses, then most headroom, then the least taken from the pool.

    The cost is `miss_cost * (probability that this request misses, or fails, + misses it causes to
    those running there) + max(TTFT / budget, TPOT / bound) + price of an adapter slot`, and a
    little for what is in flight there. While forecasts have few samples or are far off, that gives
    way to the least outstanding, with affinity to servers that hold the adapter.
    """

    def __init__(self, *, policy: PickerPolicy, rng: Random) -> None:
        """Take prices from `policy`; near-ties are drawn from `rng`."""
        self._policy = policy
        self._rng = rng

    def pick(self, tracked: TrackedRequest, servers: Sequence[OpenServer], *, now: float) -> Choice:
        """Choose the lowest cost; those within the tolerance of it are drawn uniformly."""
        backends = [server.backend for server in servers]
        scarcity = min(1.0, sum([b.adapters.crowding for b in backends]) / len(backends))
        most = max([b.sequences + b.external_running for b in backends])
        prices = (self._policy.slot_price * scarcity, _OUTSTANDING_PRICE / (1.0 + most))
        ttft_s, tpot_s = picking_bounds(tracked)
        bounds = (max(0.001, ttft_s - (now - tracked.arrived_at)), tpot_s)
        costs = [self._cost(tracked, server, bounds, prices) for server in servers]
        trust = sum([b.outlook.trust for b in backends]) / len(backends)
        if trust < _FULL_TRUST:
            by_forecast = trust / _FULL_TRUST
            costs = [
                by_forecast * cost
                + (1.0 - by_forecast) * self._outstanding(tracked, backend) / (1.0 + most)
                for cost, backend in zip(costs, backends, strict=True)
            ]
        tolerance = self._policy.tie_tolerance
        return lowest(tracked, servers, costs, self._rng, tolerance=tolerance)

    def _outstanding(self, tracked: TrackedRequest, backend: BackendState) -> float:
        """Sequences in flight there, a cold adapter as so many more."""
        outstanding = backend.sequences + backend.external_running
        adapter = backend.adapter_of(tracked.target)
        if adapter is None or backend.adapters.is_resident(adapter):
            return outstanding
        return outstanding + self._policy.cold_adapter_cost + backend.adapters.crowding

    def _cost(
        self,
        tracked: TrackedRequest,
        server: OpenServer,
        bounds: tuple[float, float | None],
        prices: tuple[float, float],
    ) -> float:
        budget_s, bound_s = bounds
        slot_price, outstanding_price = prices
        backend, prediction = server
        policy = self._policy
        tpot_s = prediction.tpot_s
        steepness = prediction.tpot_steepness
        headroom = prediction.ttft_s / budget_s
        misses = exceeding(headroom, prediction.ttft_steepness) + backend.failure_rate
        slow = 0.0
        if bound_s is not None:
            tpot_ratio = tpot_s / bound_s
            slow = exceeding(tpot_ratio, steepness)
            misses += slow
            headroom = headroom if headroom > tpot_ratio else tpot_ratio  # noqa: FURB136 - hot
        if backend.tpot_bounds:
            strictest_s = backend.strictest_tpot_s
            after = slow if strictest_s == bound_s else exceeding(tpot_s / strictest_s, steepness)
            if after > 0.0:
                stall_s = prediction.own_prefill_s / _REMAINING_TOKENS
                before_s = max(0.001, tpot_s - prediction.own_step_s - stall_s)
                before = exceeding(before_s / strictest_s, steepness)
                misses += backend.decoding * (after - before)
        cost = policy.miss_cost * misses + headroom
        cost += policy.prefill_price_per_s * prediction.own_prefill_s
        adapter = backend.adapter_of(tracked.target)
        if adapter is None:
            return cost + outstanding_price * (backend.sequences + backend.external_running)
        cost += slot_price / (1.0 + backend.adapters.active.get(adapter, 0))
        return cost + policy.load_price if prediction.cold_adapter else cost
