"""How soon are forecasts right again when one of eight servers becomes half as fast?

`python -m benchmarks.virtual.halved_speed [--load .6] [--seeds 3] [--traces DIR]`: the workload
`chat`, in virtual time. A row per span of dispatches to that server, seconds after the change, over
all seeds: the median absolute error of what was told of TTFT and TPOT, and the share of TPOT within
its p90.
"""

import argparse
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from random import Random
from statistics import fmean, median

from benchmarks.virtual.fleet_run import plan_of
from gateway.policy_benchmark.service_setup import BASE_MODEL, server_pool
from gateway.policy_benchmark.workload_plan import WorkloadPlan
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.policy import SchedulingPolicy
from gateway.simulator.fleet_model import FleetListeners, FleetOptions, RequestOutcome
from gateway.simulator.virtual_fleet import VirtualFleet

_HALVED_AT_S = 90.0
_UNTIL_S = 150.0
_SPANS_S = ((-30, 0), (0, 10), (10, 20), (20, 30), (30, 40), (40, 60))


def outcomes(plan: WorkloadPlan, load: float, seed: int) -> list[RequestOutcome]:
    """What became of the requests on the server that is halved."""
    engines = plan.pool.engines(seed)
    slow = min(engines)
    found: list[RequestOutcome] = []

    def on_outcome(outcome: RequestOutcome) -> None:
        if outcome.backend_id == slow and outcome.forecast is not None:
            found.append(outcome)

    def on_event(_g: int, now: float, _e: SchedulerEvent, _d: Sequence[Decision]) -> None:
        if now >= _HALVED_AT_S:
            engines[slow].set_speed(0.5)

    fleet = VirtualFleet(
        engines=engines,
        policies=[
            build_scheduler(
                SchedulingPolicy(pool=server_pool(plan.workload, plan.services)),
                Random(f"{seed} policy"),
            )
        ],
        options=FleetOptions(base_model=BASE_MODEL),
        rng=Random(f"{seed} fleet"),
        listeners=FleetListeners(on_outcome=on_outcome, on_event=on_event, in_flight={}),
    )
    requests = takewhile(lambda request: request.at < _UNTIL_S, plan.requests(load, seed))
    fleet.run(requests, until=_UNTIL_S + 60.0)
    return found


def _row(found: Sequence[RequestOutcome], start: float, end: float) -> str:
    ttft, tpot, held = [], [], []
    for outcome in found:
        sent_at, first_at, forecast = (
            outcome.dispatched_at,
            outcome.first_token_at,
            outcome.forecast,
        )
        gaps = outcome.planned.output_tokens - 1
        if sent_at is None or first_at is None or forecast is None or gaps < 1:
            continue
        if start <= sent_at - _HALVED_AT_S < end:
            ttft_s, tpot_s = first_at - sent_at, (outcome.ended_at - first_at) / gaps
            ttft.append(abs(forecast.ttft_s - ttft_s) / ttft_s)
            tpot.append(abs(forecast.tpot_s - tpot_s) / tpot_s)
            held.append(tpot_s <= forecast.tpot_p90_s)
    span = f"{start} to {end} s"
    return f"| {span} | {len(tpot)} | {median(ttft):.3f} | {median(tpot):.3f} | {fmean(held):.2f} |"


def main() -> None:
    """Print a row per span."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    arguments = parser.parse_args()
    plan = plan_of("chat", arguments.traces)
    seeds = range(1, arguments.seeds + 1)
    found = [each for seed in seeds for each in outcomes(plan, arguments.load, seed)]
    print("| dispatched | requests | TTFT error | TPOT error | TPOT within p90 |")
    print("| --- " * 5 + "|")
    for span in _SPANS_S:
        print(_row(found, *span))


if __name__ == "__main__":
    main()
