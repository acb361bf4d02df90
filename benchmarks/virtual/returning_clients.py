"""Is Retry-After honest? Of the clients that come back when they were told to, how many get in?

`python -m benchmarks.virtual.returning_clients [--load .8,.9] [--seeds 3] [--traces DIR]`: the
workload `bursty` (stages of 10 s at a third and at five thirds of the load) with its service
Non-Critical, so that work is refused early, in virtual time. Every refused client comes back once,
at the instant that its Retry-After names, with the same request. Above a load of 1 there is no room
for most of them, however long they wait.
"""

import argparse
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from msgspec import structs

from gateway.policy_benchmark.service_setup import BASE_MODEL, server_pool
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.workload_file import load_workload
from gateway.policy_benchmark.workload_plan import PlannedRequest, build_plan
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.model import NON_CRITICAL, RequestId
from gateway.scheduling.policy import SchedulingPolicy
from gateway.simulator.fleet_model import FleetListeners, FleetOptions
from gateway.simulator.virtual_fleet import VirtualFleet

_DURATION_S = 240.0
_BACK = "back-"


@dataclass
class Clients:
    """Arrivals of a plan, and those who come back; what became of both."""

    planned: dict[RequestId, PlannedRequest] = field(default_factory=dict)
    returns: list[tuple[float, str, PlannedRequest]] = field(default_factory=list)
    refused: int = 0
    waits_s: list[float] = field(default_factory=list)
    admitted_back: int = 0
    refused_back: int = 0

    def arrivals(self, source: Iterator[PlannedRequest]) -> Iterator[PlannedRequest]:
        """Merge first arrivals with returns, in order of time."""
        for first in source:
            while self.returns and self.returns[0][0] <= first.at:
                yield self._note(heapq.heappop(self.returns)[2])
            if first.at > _DURATION_S:
                return
            yield self._note(first)

    def _note(self, planned: PlannedRequest) -> PlannedRequest:
        self.planned[planned.request.id] = planned
        return planned

    def on_event(
        self, _gateway: int, now: float, _event: SchedulerEvent, decisions: Sequence[Decision]
    ) -> None:
        """See who gets in, and send who does not away until its time."""
        for decision in decisions:
            planned = self.planned.pop(decision.request_id)
            is_back = str(decision.request_id).startswith(_BACK)
            if isinstance(decision, Dispatch):
                self.admitted_back += is_back
            elif is_back:
                self.refused_back += 1
            elif decision.retry_after_s is not None:
                self.refused += 1
                self.waits_s.append(decision.retry_after_s)
                at = now + decision.retry_after_s
                request = structs.replace(planned.request, id=RequestId(_BACK + planned.request.id))
                again = replace(planned, at=at, request=request)
                heapq.heappush(self.returns, (at, request.id, again))


def run(load: float, seed: int, traces: Path) -> Clients:
    """One run of four minutes."""
    workload = load_workload("bursty")
    plan = build_plan(workload, TraceLibrary(traces))
    pool = server_pool(plan.workload, plan.services)
    services = tuple(replace(service, priority=NON_CRITICAL) for service in pool.services)
    policy = SchedulingPolicy(pool=replace(pool, services=services))
    clients = Clients()
    fleet = VirtualFleet(
        engines=plan.pool.engines(seed),
        policies=[build_scheduler(policy, Random(f"{seed} policy"))],
        options=FleetOptions(base_model=BASE_MODEL),
        rng=Random(f"{seed} fleet"),
        listeners=FleetListeners(on_event=clients.on_event),
    )
    fleet.run(clients.arrivals(plan.requests(load, seed)), until=_DURATION_S + 60.0)
    return clients


def main() -> None:
    """Print a row per load and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", default="0.8,0.9,1.3", help="fractions of the bound")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    arguments = parser.parse_args()
    print("| load | seed | refused | told to wait, median s | back | admitted of those back |")
    print("| --- | --- | --- | --- | --- | --- |")
    for load in map(float, arguments.load.split(",")):
        for seed in range(1, arguments.seeds + 1):
            found = run(load, seed, arguments.traces)
            back = found.admitted_back + found.refused_back
            share = f"{found.admitted_back / back:.3f}" if back else "-"
            waits = sorted(found.waits_s)
            median = f"{waits[len(waits) // 2]:.1f}" if waits else "-"
            print(f"| {load:g} | {seed} | {found.refused} | {median} | {back} | {share} |")


if __name__ == "__main__":
    main()
