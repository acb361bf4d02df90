"""Keeps servers ready for Critical requests with a tight TTFT while Non-Critical work fills them.

A server is ready for a service if a request that came now would get its first token in time: if
`margin * TTFT bound >= overhead + 2 steps + its own prefill + the prefill pending there`: the step
under way and its own, and a prompt of twice the mean. Where a Non-Critical request would leave a
server unready, others have to be ready: as many as the prefills of the service need, or, where it
would not even fit there with no prefill pending, those that it would drive away while it is
prefilled, at most all; and then it waits for a moment without a prefill pending.
"""

from collections import deque
from typing import Final

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import ServiceName, is_critical
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.tracked_request import TrackedRequest

_NEWEST: Final = 10
"""Arrivals from which a rate is told: a burst is seen in a moment, and so is its end."""
_FEWER_WITHIN_S: Final = 10.0
"""Shortest span that fewer than `_NEWEST` arrivals count for."""
_INSTANT_S: Final = 0.001
"""Shortest span that `_NEWEST` arrivals count for."""
_FORGOTTEN_AFTER_S: Final = 60.0
"""A service without requests for so long needs no server kept ready."""
_TOKENS_MEMORY: Final = 0.05
_STEPS: Final = 2.0
_PROMPTS: Final = 2.0
_PREFILL_LOAD: Final = 0.2
"""Share of its time that a server which is kept ready may spend on prefills of the service."""
_TOLERATED: Final = 0.05
"""Critical requests that may be expected to find no server ready."""


class _Demand:
    """What is known of a Critical service's requests: bound, size, and rate of arrival."""

    __slots__ = ("_newest", "prompt_tokens", "target", "ttft_bound_s")

    def __init__(self, tracked: TrackedRequest) -> None:
        self.prompt_tokens = float(tracked.prompt_tokens)
        self._newest: deque[float] = deque(maxlen=_NEWEST)

    def count(self, tracked: TrackedRequest) -> None:
        self.target = tracked.target
        self.ttft_bound_s = tracked.ttft_bound_s
        self.prompt_tokens += _TOKENS_MEMORY * (tracked.prompt_tokens - self.prompt_tokens)
        newest = self._newest
        if newest and tracked.arrived_at - newest[-1] > _FORGOTTEN_AFTER_S:
            newest.clear()  # they would thin out the burst that may begin now
        newest.append(tracked.arrived_at)

    def rate(self, now: float) -> float:
        """Requests per second."""
        newest = self._newest
        least_s = _INSTANT_S if len(newest) == _NEWEST else _FEWER_WITHIN_S
        return len(newest) / max(least_s, now - newest[0])

    def is_active(self, now: float) -> bool:
        return now - self._newest[-1] <= _FORGOTTEN_AFTER_S


class CriticalHeadroom:
    """Which Non-Critical requests may go where, for the sake of Critical ones to come."""

    def __init__(self, *, ledger: BackendLedger, predictor: LatencyPredictor) -> None:
        """Start with no Critical service seen."""
        self._ledger = ledger
        self._predictor = predictor
        self._demands: dict[ServiceName, _Demand] = {}

    def arrived(self, tracked: TrackedRequest) -> None:
        """Take in an arrival; only Critical ones with a TTFT to keep matter."""
        objective = tracked.service.objective
        if objective is None or objective.ttft_s is None or tracked.impossible:
            return
        if is_critical(tracked.service.priority):
            name = tracked.service.name
            demand = self._demands.get(name)
            if demand is None:
                demand = self._demands[name] = _Demand(tracked)
            demand.count(tracked)

    def spares(
        self,
        tracked: TrackedRequest,
        backend: BackendState,
        prediction: Prediction,
        *,
        margin: float,
        now: float,
    ) -> bool:
        """Whether Critical requests will still find a server ready once this one has `backend`.

        Args:
            tracked: a Non-Critical request; it goes anyway after half of its time, and to an idle
                server after a second.
            backend: the server.
            prediction: its forecast there.
            margin: share of their TTFT bound that Critical requests' forecasts may use.
            now: the instant.
        """
        if not self._demands:
            return True
        waited_s = now - tracked.arrived_at
        if waited_s > tracked.expires_at - now or (waited_s > 1.0 and not backend.in_flight):
            return True
        for name, demand in list(self._demands.items()):
            if not demand.is_active(now):
                del self._demands[name]
                continue
            if not backend.takes(demand.target):
                continue
            slack_s = self._slack_s(demand, backend, prediction.own_step_s, margin, now)
            unready_s = prediction.own_prefill_s - slack_s
            if unready_s <= 0.0:
                continue
            per_token_s = backend.outlook.per_prefill_token_s
            rate = demand.rate(now)
            needed = 1 + int(rate * per_token_s * demand.prompt_tokens / _PREFILL_LOAD)
            alone_s = slack_s + per_token_s * backend.pending_prefill_tokens
            in_the_way = False
            if alone_s < 0.0:
                # Its tokens alone make the steps too long, for as long as it runs.
                unready_s = prediction.ttft_s + prediction.tpot_s * tracked.expected_output_tokens
            elif prediction.own_prefill_s > alone_s:
                # However long it waits, it will not fit: it has to go when all is quiet.
                others = len(self._ledger.serving(demand.target)) - 1
                needed = min(1 + int(rate * unready_s), max(1, others))
                in_the_way = backend.pending_prefill_tokens > 0.0
            if rate * unready_s > _TOLERATED and (
                in_the_way or not self._are_ready(demand, needed, margin, besides=backend, now=now)
            ):
                return False
        return True

    def _are_ready(
        self, demand: _Demand, needed: int, margin: float, *, besides: BackendState, now: float
    ) -> bool:
        """Whether so many other servers are ready now."""
        backends = self._ledger.serving(demand.target)
        if len(backends) <= needed:
            return False
        for other in backends:
            if other is not besides and self._slack_s(demand, other, 0.0, margin, now) >= 0.0:
                needed -= 1
                if not needed:
                    return True
        return False

    def _slack_s(
        self, demand: _Demand, backend: BackendState, more_step_s: float, margin: float, now: float
    ) -> float:
        """Time that a request of the service would have to spare on a server."""
        if now >= backend.fresh_until:
            self._predictor.glance(backend, now=now)
        outlook = backend.outlook
        prefill_tokens = _PROMPTS * demand.prompt_tokens + backend.pending_prefill_tokens
        return (
            margin * demand.ttft_bound_s
            - outlook.overhead_s
            - _STEPS * (outlook.base_s + more_step_s)
            - outlook.per_prefill_token_s * prefill_tokens
        )
