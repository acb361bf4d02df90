"""First sight of servers: about what each of them would cost a request, from O(1) aggregates.

The cost is the picker's (latency_picker.py), with TTFT and TPOT linear in the request, as the
server's glance has them, and with the misses that the request would inflict on those running
there by the derivative of their chance to miss.
"""

from collections.abc import Sequence

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.bounds import picking_bounds
from gateway.scheduling.capacity import Capacity, exceeds
from gateway.scheduling.latency_picker import prices_among
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.miss_risk import exceeding
from gateway.scheduling.outlook import NO_GLANCE
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_NEGLIGIBLE = 4.0
"""Steepness times distance from a bound from which a chance to miss it, below .02, is left out."""


class FirstSight:
    """Rough costs of many servers for one request."""

    def __init__(
        self, *, predictor: LatencyPredictor, capacity: Capacity, policy: PickerPolicy
    ) -> None:
        """Take glances from `predictor`, margins from `capacity`, and prices from `policy`."""
        self._glance = predictor.glance
        self._capacity = capacity
        self._policy = policy

    def costs(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> list[tuple[float, int]]:
        """(cost, position) of those of `backends` that are not surely closed to the request."""
        target = tracked.target
        prompt = tracked.prompt_tokens
        context = prompt + tracked.expected_output_tokens / 2
        ttft_bound_s, tpot_bound_s = picking_bounds(tracked)
        per_budget = 1.0 / max(0.001, ttft_bound_s - (now - tracked.arrived_at))
        per_bound = 0.0 if tpot_bound_s is None else 1.0 / tpot_bound_s
        margin = self._capacity.margin_of(tracked)
        own_limit_s = float("inf") if tracked.tpot_bound_s is None else tracked.tpot_bound_s
        start = backends[0].start_of(tracked)
        slot_price, sequence_price = prices_among(target, backends, self._policy)
        miss_cost = self._policy.miss_cost
        prefill_price = self._policy.prefill_price_per_s
        order: list[tuple[float, int]] = []
        for number, backend in enumerate(backends):
            if target in backend.lora_models:
                adapters = backend.adapters
                active = adapters.active.get(target, 0)
                if not active and adapters.crowding >= 1.0 and not adapters.admits(target):
                    continue
                cost = slot_price / (1.0 + active)
            else:
                cost = sequence_price * (backend.sequences + backend.external_running)
            glance = backend.glance
            if now >= backend.fresh_until or glance is NO_GLANCE:
                glance = self._glance(backend, now=now)
            (
                ttft_s,
                per_token_s,
                tpot_s,
                per_context_s,
                certain,
                per_prefill_s,
                ttft_steepness,
                slow,
                before_s,
                misses_per_s,
            ) = glance
            tpot_s += context * per_context_s
            limit_s = backend.strictest_tpot_s
            limit_s = own_limit_s if own_limit_s < limit_s else limit_s  # noqa: FURB136 - hot
            if tpot_s * certain > margin * limit_s and _closes(backend, tracked):
                continue
            own = prompt
            if start in backend.prefixes.held:
                own = backend.uncached_tokens(tracked)
            ratio = (ttft_s + own * per_token_s) * per_budget
            tpot_ratio = tpot_s * per_bound
            cost += ratio if ratio > tpot_ratio else tpot_ratio  # noqa: FURB136 - hot
            cost += prefill_price * own * per_prefill_s
            if ttft_steepness * (1.0 - ratio) < _NEGLIGIBLE:
                cost += miss_cost * exceeding(ratio, ttft_steepness)
            cost += miss_cost * (slow + misses_per_s * (tpot_s - before_s) + backend.failure_rate)
            order.append((cost, number))
        return order


def _closes(backend: BackendState, tracked: TrackedRequest) -> bool:
    """Whether a TPOT beyond the bounds closes the server: it runs something, and will take it."""
    return bool(backend.in_flight) and not exceeds(backend, tracked)
