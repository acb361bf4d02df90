"""The server where the request and those already there are most likely to meet their objectives."""

from collections.abc import Sequence
from random import Random
from typing import Final

from gateway.scheduling.backend_picker import Choice, lowest
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.bounds import picking_bounds
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.miss_risk import exceeding
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.tracked_request import TrackedRequest

_OUTSTANDING_PRICE: Final = 0.05
"""Cost of as many sequences in flight as the busiest candidate has: it decides where forecasts
hardly differ, and brings traffic, and with it new samples, to a server that once was slow. It
counts for base models only: an adapter that is spread over servers takes slots from others."""
_FULL_TRUST: Final = 0.8
"""Mean trust in the candidates' forecasts above which they alone decide; see forecast_error.py."""
_REMAINING_TOKENS: Final = 100.0
"""About what a running request still has to decode; a prefill's stall is spread over them."""


class LatencyPicker:
    """Fewest expected misses, then most headroom, then the least taken from the pool.

    The cost is `miss_cost * (probability that this request misses, or fails, + misses it causes to
    those running there) + max(TTFT / budget, TPOT / bound) + price of an adapter slot + price of
    another copy of the prompt`, and a little for what is in flight there. While forecasts have few
    samples or are far off, that gives way to the least outstanding, with affinity to servers that
    hold the adapter.
    """

    def __init__(self, *, policy: PickerPolicy, rng: Random) -> None:
        """Take prices from `policy`; near-ties are drawn from `rng`."""
        self._policy = policy
        self._rng = rng

    def pick(self, tracked: TrackedRequest, servers: Sequence[OpenServer], *, now: float) -> Choice:
        """Choose the lowest cost; those within the tolerance of it are drawn uniformly."""
        policy = self._policy
        backends = [server.backend for server in servers]
        slot_price, sequence_price = self._prices(tracked.target, backends)
        budget_s, bound_s = picking_bounds(tracked)
        budget_s = max(0.001, budget_s - (now - tracked.arrived_at))
        target = tracked.target
        copy_price, fewest = self._copy_price(tracked, servers)
        costs: list[float] = []
        for server in servers:
            backend, prediction = server.backend, server.prediction
            tpot_s, steepness = prediction.tpot_s, prediction.tpot_steepness
            headroom = prediction.ttft_s / budget_s
            misses = exceeding(headroom, prediction.ttft_steepness) + backend.failure_rate
            slow = 0.0
            if bound_s is not None:
                tpot_ratio = tpot_s / bound_s
                slow = exceeding(tpot_ratio, steepness)
                misses += slow
                headroom = headroom if headroom > tpot_ratio else tpot_ratio  # noqa: FURB136 - hot
            if backend.tpot_bounds and backend.decoding:
                strictest_s = backend.strictest_tpot_s
                if strictest_s != bound_s:
                    slow = exceeding(tpot_s / strictest_s, steepness)
                if slow > 0.0:
                    misses += backend.decoding * (slow - _before(prediction, strictest_s))
            cost = policy.miss_cost * misses + headroom
            own_prefill_s = prediction.own_prefill_s
            cost += policy.prefill_price_per_s * own_prefill_s
            if copy_price:
                cost += copy_price * own_prefill_s * (1.0 - fewest / prediction.uncached_tokens)
            if target in backend.lora_models:
                cost += slot_price / (1.0 + backend.adapters.active.get(target, 0))
                if prediction.cold_adapter:
                    cost += policy.load_price
            else:
                cost += sequence_price * (backend.sequences + backend.external_running)
            costs.append(cost)
        trust = sum([b.outlook.trust for b in backends]) / len(backends)
        if trust < _FULL_TRUST:
            costs = self._hedged(target, backends, costs, trust / _FULL_TRUST)
        return lowest(tracked, servers, costs, self._rng, tolerance=policy.tie_tolerance)

    def _copy_price(
        self, tracked: TrackedRequest, servers: Sequence[OpenServer]
    ) -> tuple[float, int]:
        """(Price of a second of prefill that the holder would spare, tokens uncached there).

        The holder is the one of `servers` with most of the prompt. Another copy pushes out other
        prompts, and what follows the part in common is then prefilled twice, too. The more of
        those that run share it, the sooner a copy pays. Without a known prefix it is 0.
        """
        if not tracked.block_tokens:
            return 0.0, 0
        best = servers[0]
        for server in servers:
            if server.prediction.uncached_tokens < best.prediction.uncached_tokens:
                best = server
        holder, fewest = best.backend, best.prediction.uncached_tokens
        held = int((tracked.prompt_tokens - fewest) / tracked.block_tokens)
        adapter = holder.adapter_of(tracked.target)
        users = holder.shared.users_of(adapter, tracked.request.prefix_blocks, held)
        return self._policy.copy_price_per_s / (1.0 + users), fewest

    def _prices(self, target: str, backends: Sequence[BackendState]) -> tuple[float, float]:
        """(of an adapter slot, of a sequence in flight) for a request to one of `backends`.

        The first grows with the share of slots in use and is for adapters; the second is for base
        models.
        """
        if target in backends[0].lora_models:
            scarcity = min(1.0, sum([b.adapters.crowding for b in backends]) / len(backends))
            return self._policy.slot_price * scarcity, 0.0
        most = max([b.sequences + b.external_running for b in backends])
        return 0.0, _OUTSTANDING_PRICE / (1.0 + most)

    def _hedged(
        self, target: str, backends: Sequence[BackendState], costs: list[float], by_forecast: float
    ) -> list[float]:
        """The costs, drawn towards what is in flight; a cold adapter is as so many more."""
        most = max([b.sequences + b.external_running for b in backends])
        hedged: list[float] = []
        for number, backend in enumerate(backends):
            outstanding = backend.sequences + backend.external_running
            if target in backend.lora_models and not backend.adapters.is_resident(target):
                outstanding += self._policy.cold_adapter_cost + backend.adapters.crowding
            hedged.append(
                by_forecast * costs[number] + (1.0 - by_forecast) * outstanding / (1.0 + most)
            )
        return hedged


def _before(prediction: Prediction, bound_s: float) -> float:
    """Chance that those who run on the server would exceed a TPOT without the request."""
    stall_s = prediction.own_prefill_s / _REMAINING_TOKENS
    before_s = max(0.001, prediction.tpot_s - prediction.own_step_s - stall_s)
    return exceeding(before_s / bound_s, prediction.tpot_steepness)
