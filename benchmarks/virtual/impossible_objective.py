"""Does a service with an objective that nothing can meet take from the others?

`python -m benchmarks.virtual.impossible_objective [--load 1.1] [--seeds 3] [--traces DIR]`: the
workload `all-critical` in virtual time, three times on the same arrivals: as it is; with an
objective of 5 ms to the first token for the service `urgent`; and without its requests. What the
other services lose by the second must be no more than what its work costs them: the difference
between the first and the third.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from benchmarks.virtual.fleet_run import Window, judged_run, plan_of
from gateway.policy_benchmark.service_setup import server_pool
from gateway.policy_benchmark.workload_plan import PlannedRequest, WorkloadPlan
from gateway.scheduling.model import LatencyObjective
from gateway.scheduling.policy import SchedulingPolicy

_SERVICE = "urgent"
_IMPOSSIBLE = LatencyObjective(ttft_s=0.005, tpot_s=0.04)
_WINDOW = Window(30.0, 90.0)
_CASES = ("as it is", "with an impossible objective", "without it")


def arrivals(plan: WorkloadPlan, load: float, seed: int, case: str) -> Iterator[PlannedRequest]:
    """The same requests for each case, without those of the service in the last one."""
    for planned in takewhile(lambda r: r.at < _WINDOW.end, plan.requests(load, seed)):
        if case != _CASES[2] or planned.request.service != _SERVICE:
            yield planned


def policy_of(plan: WorkloadPlan, case: str) -> SchedulingPolicy:
    """What the scheduler is told of the services."""
    pool = server_pool(plan.workload, plan.services)
    services = tuple(
        replace(service, objective=_IMPOSSIBLE)
        if case == _CASES[1] and service.name == _SERVICE
        else service
        for service in pool.services
    )
    return SchedulingPolicy(pool=replace(pool, services=services))


def main() -> None:
    """Print a row per case: attainment of each of the others, and of both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--load", type=float, default=1.1, help="of the bound")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    arguments = parser.parse_args()
    plan = plan_of("all-critical", arguments.traces)
    others = [number for number, setup in enumerate(plan.services) if setup.name != _SERVICE]
    names = " | ".join(plan.services[number].name for number in others)
    print(f"| service {_SERVICE} | {names} | both |")
    print("| --- " * (2 + len(others)) + "|")
    for case in _CASES:
        counted = [[0, 0] for _ in others]
        for seed in range(1, arguments.seeds + 1):
            requests = arrivals(plan, arguments.load, seed, case)
            metrics = judged_run(plan, policy_of(plan, case), requests, seed=seed, window=_WINDOW)
            for pair, number in zip(counted, others, strict=True):
                pair[0] += metrics.services[number].offered
                pair[1] += metrics.services[number].met
        counted.append([sum(pair[0] for pair in counted), sum(pair[1] for pair in counted)])
        cells = " | ".join(f"{met / max(1, offered):.3f}" for offered, met in counted)
        print(f"| {case} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
