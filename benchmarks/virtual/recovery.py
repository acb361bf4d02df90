"""How soon is all as before when an overload ends?

`python -m benchmarks.virtual.recovery [--loads 1.3,1.7,3.0] [--queue-timeout S] [--seeds 3]
[--traces DIR]`: the workload `half-critical` for a minute at each load, then at .8 of the bound, in
virtual time. A row per load: attainment, pooled over seeds, in the last 20 s of the overload and by
the time of arrival after its end. `--queue-timeout` is how long Critical requests wait at most:
above the bound alone, they leave a backlog of (their load - 1) times that, in seconds of the pool's
time, which what on-time Critical ones leave of the pool has to serve first.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import dropwhile, takewhile
from pathlib import Path

from msgspec import structs

from benchmarks.virtual.fleet_run import Window, judged_run, plan_of
from gateway.policy_benchmark.service_setup import server_pool
from gateway.policy_benchmark.service_tally import BUCKET_S, ServiceTally
from gateway.policy_benchmark.workload_plan import PlannedRequest, WorkloadPlan
from gateway.scheduling.model import RequestId
from gateway.scheduling.policy import QueuePolicy, SchedulingPolicy

_OVERLOAD_S = 60.0
_JUDGED_BEFORE_S = 20.0
_AFTER_S = 40.0
_LOAD_AFTER = 0.8
_SPANS_S = ((-20, 0), (0, 5), (5, 10), (10, 15), (15, 30), (30, 40))


def arrivals(plan: WorkloadPlan, load: float, seed: int) -> Iterator[PlannedRequest]:
    """A minute of overload, then what the pool can do."""
    yield from takewhile(lambda r: r.at < _OVERLOAD_S, plan.requests(load, seed))
    calm = dropwhile(lambda r: r.at < _OVERLOAD_S, plan.requests(_LOAD_AFTER, seed + 1_000))
    for planned in takewhile(lambda r: r.at < _OVERLOAD_S + _AFTER_S, calm):
        request = structs.replace(planned.request, id=RequestId(f"after-{planned.request.id}"))
        yield replace(planned, request=request)


def run(plan: WorkloadPlan, load: float, seed: int, *, queue: QueuePolicy) -> list[ServiceTally]:
    """The services' tallies, by arrival, of one run."""
    policy = SchedulingPolicy(pool=server_pool(plan.workload, plan.services), queue=queue)
    window = Window(_OVERLOAD_S - _JUDGED_BEFORE_S, _OVERLOAD_S + _AFTER_S)
    return judged_run(plan, policy, arrivals(plan, load, seed), seed=seed, window=window).services


def attained(tally: ServiceTally, start: float, end: float) -> float:
    """Met / offered of arrivals from `start` to `end`, seconds after the overload."""
    first, last = ((_OVERLOAD_S + edge) / BUCKET_S for edge in (start, end))
    pairs = [pair for bucket, pair in tally.buckets.items() if first <= bucket < last]
    return sum(met for _, met in pairs) / max(1, sum(offered for offered, _ in pairs))


def main() -> None:
    """Print a row per load and service."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loads", default="1.3,1.7,3.0", help="of the overload")
    parser.add_argument("--queue-timeout", type=float, default=QueuePolicy().timeout_s)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    arguments = parser.parse_args()
    queue = QueuePolicy(timeout_s=arguments.queue_timeout)
    plan = plan_of("half-critical", arguments.traces)
    spans = " | ".join(f"{start} to {end} s" for start, end in _SPANS_S)
    print(f"| load before | service | {spans} |")
    print("| --- " * (2 + len(_SPANS_S)) + "|")
    for load in map(float, arguments.loads.split(",")):
        pooled = [ServiceTally() for _ in plan.services]
        for seed in range(1, arguments.seeds + 1):
            for total, tally in zip(pooled, run(plan, load, seed, queue=queue), strict=True):
                total.merge(tally)
        for setup, total in zip(plan.services, pooled, strict=True):
            cells = " | ".join(f"{attained(total, *span):.3f}" for span in _SPANS_S)
            print(f"| {load:g} | {setup.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
