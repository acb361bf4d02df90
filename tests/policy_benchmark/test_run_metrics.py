from pathlib import Path

import pytest

from gateway.policy_benchmark.run_metrics import RunMetrics
from gateway.policy_benchmark.run_result import RunKey, RunResult, run_result
from gateway.policy_benchmark.workload_plan import PlannedRequest, WorkloadPlan
from gateway.scheduling.decisions import Dispatch, RefusalReason, Reject
from gateway.scheduling.events import BackendLoadReported, DeadlinePassed
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    Forecast,
    InferenceRequest,
    RequestId,
)
from gateway.simulator.engine import EngineStats
from gateway.simulator.fleet_model import Ending, RequestOutcome
from tests.policy_benchmark.workload_texts import plan

TWO = """\
name: two
description: a Critical and a Non-Critical service
servers: {profile: llama3.1-8b-h100-64, count: 2}
services:
  - name: critical
    lengths: {input: {fixed: 500}, output: {fixed: 100}}
    objective: {ttft: 1s, tpot: 50ms}
  - name: batch
    lengths: {input: {fixed: 500}, output: {fixed: 100}}
measure: {warmup: 5s, requests: 300}
"""
FORECAST = Forecast(0.5, 0.7, 0.02, 0.03)


def outcome(
    service: int,
    at: float,
    *,
    ttft: float = 0.5,
    tpot: float = 0.03,
    ending: Ending = Ending.COMPLETED,
    feasible: bool = True,
    dispatched_after: float = 0.0,
) -> RequestOutcome:
    request = InferenceRequest(RequestId("r"), ("critical", "batch")[service], "base", 1, 1)  # type: ignore[arg-type]  # a service's name
    made = PlannedRequest(
        at, request, 500, 101, service_index=service, feasible=feasible, work_s=0.02
    )
    done = ending is Ending.COMPLETED
    return RequestOutcome(
        planned=made,
        ending=ending,
        ended_at=at + ttft + 100 * tpot,
        backend_id=BackendId("s0"),
        dispatched_at=None if ending is Ending.REFUSED else at + dispatched_after,
        first_token_at=at + ttft if done else None,
        forecast=FORECAST,
    )


class Judge:
    def __init__(self, tmp_path: Path, *, forecasts: bool = False) -> None:
        self.plan: WorkloadPlan = plan(tmp_path, TWO)
        self.metrics = RunMetrics(self.plan, start=10.0, end=110.0, forecasts=forecasts)

    def result(self) -> RunResult:
        return run_result(
            self.plan,
            RunKey("x", 0.9, 1),
            self.metrics,
            measured_s=100.0,
            engines=[EngineStats(cold_adapter_loads=2, max_distinct_adapters=3), EngineStats()],
        )

    def see(self, *outcomes: RequestOutcome) -> RunResult:
        for each in outcomes:
            self.metrics.on_outcome(each)
        return self.result()


def test_attainment_is_met_over_offered_per_class_and_service(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(
        outcome(0, 20.0),
        outcome(0, 21.0, ttft=1.1),
        outcome(0, 22.0, tpot=0.051),
        outcome(0, 23.0, ending=Ending.REFUSED),
        outcome(1, 24.0, ttft=50.0),
    )
    assert result["attainment_critical"] == 0.25
    assert result["attainment_non_critical"] == 1.0
    assert result["attainment"] == 0.4
    assert result["goodput_rps"] == 0.02
    assert result["token_goodput"] == pytest.approx(2.02)
    assert result["shed_rate"] == 0.2
    assert result["services"]["critical"]["met"] == 1


def test_what_arrives_outside_of_the_window_is_not_counted(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(outcome(0, 9.99), outcome(0, 110.0), outcome(0, 10.0))
    assert result["offered"] == 1
    assert result["requests"] == 3


def test_infeasible_requests_are_counted_apart(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(outcome(0, 20.0), outcome(0, 20.0, feasible=False, ttft=9.0))
    assert result["attainment"] == 1.0
    assert result["infeasible"] == 1


def test_a_request_that_failed_or_never_ended_is_a_miss(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(
        outcome(1, 20.0, ending=Ending.FAILED), outcome(1, 20.0, ending=Ending.UNFINISHED)
    )
    assert result["attainment"] == 0.0
    assert result["failed"] == 2


def test_times_are_counted_from_the_arrival(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(outcome(0, 20.0, ttft=0.4, tpot=0.02))
    assert result["ttft_s"]["p50"] == pytest.approx(0.4, rel=0.01)
    assert result["tpot_s"]["p90"] == pytest.approx(0.02, rel=0.01)
    assert result["ntpot_s"]["p99"] == pytest.approx(2.4 / 101, rel=0.01)


def test_work_spent_on_missed_requests_is_wasted_refusals_are_not(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(
        outcome(0, 20.0),
        outcome(0, 20.0, ttft=2.0),
        outcome(0, 20.0, ending=Ending.REFUSED),
    )
    assert result["wasted_work"] == pytest.approx(0.5)


def test_fairness_looks_at_attainment_relative_to_the_target(tmp_path: Path) -> None:
    result = Judge(tmp_path).see(
        outcome(0, 20.0), outcome(0, 20.0, ttft=2.0), outcome(1, 20.0), outcome(1, 20.0)
    )
    fairness = result["fairness"]
    assert fairness["gap"] == 0.5
    x = 0.5 / 0.95
    assert fairness["jain"] == pytest.approx((x + 1) ** 2 / (2 * (x * x + 1)))
    assert fairness["largest_deficit"] == pytest.approx(0.45)


def test_predictions_are_judged_from_dispatch_to_first_token(tmp_path: Path) -> None:
    judge = Judge(tmp_path, forecasts=True)
    result = judge.see(outcome(0, 20.0, ttft=1.0, tpot=0.025, dispatched_after=0.375))
    # Actual .625 s against a mean of .5 and a p90 of .7; .025 against .02 and .03.
    assert result["predictor"]["ttft_mdape"] == pytest.approx(0.2, rel=0.01)
    assert result["predictor"]["tpot_mdape"] == pytest.approx(0.2, rel=0.01)
    assert result["predictor"]["ttft_p90_coverage"] == 1.0


def test_without_forecasts_the_predictor_is_null(tmp_path: Path) -> None:
    assert set(Judge(tmp_path).see(outcome(0, 20.0))["predictor"].values()) == {None}


def test_a_critical_refusal_after_a_later_non_critical_dispatch_is_an_inversion(
    tmp_path: Path,
) -> None:
    judge = Judge(tmp_path)
    in_flight = judge.metrics.listeners().in_flight
    critical = outcome(0, 20.0).planned
    batch = outcome(1, 21.0).planned
    in_flight[RequestId("c")] = critical
    in_flight[RequestId("b")] = batch
    dispatch = Dispatch(RequestId("b"), BackendId("s0"), "base", FORECAST)
    refusal = Reject(RequestId("c"), RefusalReason.QUEUE_TIMEOUT)
    judge.metrics.on_event(0, 20.5, DeadlinePassed(), [refusal])
    assert judge.metrics.inversions == 0
    judge.metrics.on_event(0, 21.0, DeadlinePassed(), [dispatch])
    judge.metrics.on_event(0, 22.0, DeadlinePassed(), [refusal])
    assert judge.metrics.inversions == 1


def test_a_refused_non_critical_request_is_no_inversion(tmp_path: Path) -> None:
    judge = Judge(tmp_path)
    in_flight = judge.metrics.listeners().in_flight
    in_flight[RequestId("b")] = outcome(1, 20.0).planned
    dispatch = Dispatch(RequestId("b"), BackendId("s0"), "base", FORECAST)
    judge.metrics.on_event(0, 21.0, DeadlinePassed(), [dispatch])
    refusal = Reject(RequestId("b"), RefusalReason.NO_CAPACITY)
    judge.metrics.on_event(0, 22.0, DeadlinePassed(), [refusal])
    assert judge.metrics.inversions == 0


def test_servers_are_sampled_every_two_seconds(tmp_path: Path) -> None:
    judge = Judge(tmp_path)
    for tick in range(50):
        load = BackendLoad(running=tick, kv_usage=0.5, active_adapters=("x",))
        event = BackendLoadReported(BackendId("s0"), load, 0.0)
        judge.metrics.on_event(0, tick * 0.1, event, [])
    assert judge.result()["servers_over_time"]["s0"] == [
        (0.0, 0, 0.5, 1),
        (2.0, 20, 0.5, 1),
        (4.0, 40, 0.5, 1),
    ]


def test_engine_totals_are_summed_and_the_most_adapters_kept(tmp_path: Path) -> None:
    lora = Judge(tmp_path).see()["lora"]
    assert lora == {"cold_loads": 2, "slot_waits": 0, "max_distinct_adapters": 3}


def test_a_run_without_measured_requests_has_no_attainment(tmp_path: Path) -> None:
    result = Judge(tmp_path).see()
    assert result["attainment"] is None
    assert result["shed_rate"] is None
    assert result["fairness"]["gap"] is None
