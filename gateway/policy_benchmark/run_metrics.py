"""Judges the requests of one run as they end: attainment, times, fairness, inversions."""

from bisect import bisect
from collections.abc import Sequence
from typing import cast

from gateway.policy_benchmark.prediction_tally import PredictionTally
from gateway.policy_benchmark.service_tally import BUCKET_S, ServiceTally
from gateway.policy_benchmark.workload_plan import PlannedRequest, WorkloadPlan
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import BackendLoadReported, SchedulerEvent
from gateway.scheduling.model import BackendId, RequestId
from gateway.simulator.fleet_model import Ending, FleetListeners, FleetRequest, RequestOutcome

_SERVER_SAMPLE_S = 2.0
_SERVERS_SHOWN = 32

ServerSample = tuple[float, int, float, int]
"""Instant (s), running requests, KV use, active adapters of one server, as reported."""


class RunMetrics:
    """Counts what is measured: requests that arrive within [start, end), seconds.

    Attributes:
        services: a tally per service of the plan, in its order.
        deciles: [offered, met] by size, smallest first.
        inversions: Critical requests given up although a Non-Critical one had been dispatched
            after they arrived. Openness cannot be seen from outside, so this is an upper bound of
            what scheduling.md calls an inversion.
        seen: requests that ended, measured or not.
    """

    def __init__(self, plan: WorkloadPlan, *, start: float, end: float, forecasts: bool) -> None:
        """Judge a run of `plan`; `forecasts` says whether the policy makes any."""
        self.services = [ServiceTally() for _ in plan.services]
        self.deciles = [[0, 0] for _ in range(10)]
        self.inversions = 0
        self.predictions = PredictionTally()
        self.server_samples: dict[BackendId, list[ServerSample]] = {}
        self.seen = 0
        self._plan = plan
        self._start = start
        self._end = end
        self._forecasts = forecasts
        self._critical = [setup.critical for setup in plan.services]
        self._last_non_critical_at = -1.0
        self._in_flight: dict[RequestId, FleetRequest] = {}

    def listeners(self) -> FleetListeners:
        """What the fleet must tell."""
        return FleetListeners(
            on_outcome=self.on_outcome, on_event=self.on_event, in_flight=self._in_flight
        )

    def on_event(
        self, _gateway: int, now: float, event: SchedulerEvent, decisions: Sequence[Decision]
    ) -> None:
        """See what a policy decided, for inversions, and what servers reported, for plots."""
        for decision in decisions:
            planned = cast("PlannedRequest", self._in_flight[decision.request_id])
            critical = self._critical[planned.service_index]
            if isinstance(decision, Dispatch):
                if not critical:
                    self._last_non_critical_at = now
            elif critical and self._last_non_critical_at > planned.at and self._counts(planned):
                self.inversions += 1
        if isinstance(event, BackendLoadReported):
            self._sample_server(event, now)

    def on_outcome(self, outcome: RequestOutcome) -> None:
        """Judge a request that ended."""
        self.seen += 1
        planned = cast("PlannedRequest", outcome.planned)
        if not self._start <= planned.at < self._end:
            return
        tally = self.services[planned.service_index]
        if not planned.feasible:
            tally.infeasible += 1
            return
        met = self._is_met(outcome, planned)
        bucket = tally.buckets[int(planned.at // BUCKET_S)]
        decile = self.deciles[bisect(self._plan.work_deciles, planned.work_s)]
        for pair in (bucket, decile):
            pair[0] += 1
            pair[1] += met
        tally.offered += 1
        tally.refused += outcome.ending is Ending.REFUSED
        tally.failed += outcome.ending in {Ending.FAILED, Ending.UNFINISHED}
        if outcome.dispatched_at is not None:
            tally.work_s += planned.work_s
            tally.wasted_s += 0.0 if met else planned.work_s
        if met:
            tally.met += 1
            tally.met_tokens += planned.output_tokens
        if outcome.ending is Ending.COMPLETED:
            self._add_times(tally, outcome)

    def _counts(self, planned: PlannedRequest) -> bool:
        return planned.feasible and self._start <= planned.at < self._end

    def _is_met(self, outcome: RequestOutcome, planned: PlannedRequest) -> bool:
        if outcome.ending is not Ending.COMPLETED:
            return False
        objective = self._plan.services[planned.service_index].service.objective
        if objective is None:
            return True
        assert outcome.first_token_at is not None
        return objective.is_met(
            ttft_s=outcome.first_token_at - planned.at,
            e2e_s=outcome.ended_at - planned.at,
            output_tokens=planned.output_tokens,
        )

    def _add_times(self, tally: ServiceTally, outcome: RequestOutcome) -> None:
        planned, first, end = outcome.planned, outcome.first_token_at, outcome.ended_at
        assert first is not None
        assert outcome.dispatched_at is not None
        tally.done[int(end // BUCKET_S)] += planned.output_tokens
        tally.served_tokens += planned.prompt_tokens + 2 * planned.output_tokens
        tally.ttft.add(first - planned.at)
        tally.ntpot.add((end - planned.at) / planned.output_tokens)
        tpot_s = None
        if planned.output_tokens > 1:
            tpot_s = (end - first) / (planned.output_tokens - 1)
            tally.tpot.add(tpot_s)
        forecast = outcome.forecast
        if self._forecasts and forecast is not None:
            add, ahead = self.predictions.add, outcome.ahead
            actual = first - outcome.dispatched_at
            add("ttft", actual, forecast.ttft_s, forecast.ttft_p90_s, ahead=ahead)
            if tpot_s is not None:
                add("tpot", tpot_s, forecast.tpot_s, forecast.tpot_p90_s, ahead=ahead)

    def _sample_server(self, event: BackendLoadReported, now: float) -> None:
        samples = self.server_samples.get(event.backend_id)
        if samples is None:
            if len(self.server_samples) >= _SERVERS_SHOWN:
                return
            samples = self.server_samples[event.backend_id] = []
        if not samples or now - samples[-1][0] >= _SERVER_SAMPLE_S:
            load = event.load
            adapters = len(load.active_adapters or ())
            samples.append((now, load.running or 0, load.kv_usage or 0.0, adapters))
