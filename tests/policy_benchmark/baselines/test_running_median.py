from random import Random

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.policy_benchmark.baselines.least_outstanding import LeastOutstanding
from gateway.policy_benchmark.baselines.running_median import WINDOW, RunningMedian
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.events import RequestArrived
from gateway.scheduling.model import Forecast
from tests.policy_benchmark.baselines.baseline_rig import BaselineRig, request


def rig() -> BaselineRig:
    inner = ImmediateDispatch(LeastOutstanding(Random(1)))
    return BaselineRig(RunningMedian(inner), "a")


def forecast(fleet: BaselineRig, request_id: str) -> Forecast:
    (decision,) = fleet.policy.handle(RequestArrived(request(request_id)), now=0.0)
    assert isinstance(decision, Dispatch)
    return decision.forecast


def serve(fleet: BaselineRig, request_id: str, ttft: float, tpot: float) -> None:
    fleet.arrive(request_id)
    fleet.first_token(request_id, now=ttft)
    fleet.finish(request_id, output_tokens=11, now=ttft + 10 * tpot)


def test_the_forecast_is_the_median_of_what_the_server_did() -> None:
    fleet = rig()
    for number, ttft in enumerate((0.5, 0.1, 0.3)):
        serve(fleet, f"r{number}", ttft, ttft / 10)
    seen = forecast(fleet, "next")
    assert seen.ttft_s == 0.3
    assert abs(seen.tpot_s - 0.03) < 1e-9


def test_old_values_are_forgotten() -> None:
    fleet = rig()
    for number in range(WINDOW):
        serve(fleet, f"old{number}", 9.0, 0.9)
    for number in range(WINDOW):
        serve(fleet, f"new{number}", 0.2, 0.02)
    assert forecast(fleet, "next").ttft_p90_s == 0.2


def test_without_samples_the_forecast_is_zero() -> None:
    assert forecast(rig(), "r1") == Forecast(0.0, 0.0, 0.0, 0.0)
