"""CPU time of events in a long queue; `python -m benchmarks.micro.queue_cost`.

A server with one place is busy, and so many Critical requests of eight services wait for it, in
virtual time. Then a round is repeated: a request arrives, the running one ends so that the next is
dispatched, one in the middle of the queue is cancelled, a deadline passes in vain; the length stays
as it is. Every event is timed by the process's CPU clock. The last rows show by what factor an
event is dearer in the longest queue than in the shortest; collections of the cycle collector are
left out (`gc.freeze`), as in a process that has settled.
"""

import argparse
import gc
from collections import defaultdict
from random import Random
from statistics import fmean, median
from time import process_time_ns

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.model import (
    CRITICAL,
    BackendId,
    InferenceRequest,
    LatencyObjective,
    LLMServerPool,
    LLMService,
    RequestId,
    ServedModel,
    ServiceName,
    TargetModel,
    TokenUsage,
)
from gateway.scheduling.policy import (
    CapacityPolicy,
    FairnessDimension,
    FairnessPolicy,
    QueuePolicy,
    SchedulingPolicy,
)

_SERVICES = 8
_KINDS = ("arrival", "finish", "cancel", "deadline")


class _LongQueue:
    """A scheduler in which `length` requests wait."""

    def __init__(self, length: int, dimension: FairnessDimension) -> None:
        services = tuple(
            LLMService(
                name=ServiceName(f"service-{number}"),
                model=f"service-{number}",
                targets=(TargetModel("base"),),
                objective=LatencyObjective(ttft_s=1e6, tpot_s=1.0),
                priority=CRITICAL,
            )
            for number in range(_SERVICES)
        )
        policy = SchedulingPolicy(
            pool=LLMServerPool(name="pool", services=services),
            capacity=CapacityPolicy(max_requests_per_backend=1),
            fairness=FairnessPolicy(dimension=dimension),
            queue=QueuePolicy(
                max_requests=2 * length + 10, max_bytes=1 << 40, timeout_s=float(1 << 30)
            ),
        )
        self._scheduler = build_scheduler(policy, Random(1))
        self._rng = Random(2)
        self._now = 0.0
        self._number = 0
        self._running: RequestId | None = None
        self._waiting: list[RequestId] = []
        self.spent_ns: dict[str, list[int]] = defaultdict(list)
        self._tell(ev.BackendJoined(BackendId("server"), (ServedModel("base"),)))
        for _ in range(length + 1):
            self._arrive()

    def run(self, rounds: int) -> None:
        """Time so many rounds."""
        self.spent_ns.clear()
        for _ in range(rounds):
            self._now += 0.01
            self._arrive()
            self._arrive()
            assert self._running is not None, "the server is never idle"
            usage = TokenUsage(prompt_tokens=100, completion_tokens=10, events=10)
            self._tell(ev.ResponseFinished(self._running, usage), "finish")
            middle = self._rng.randrange(len(self._waiting))
            self._waiting[middle], self._waiting[-1] = self._waiting[-1], self._waiting[middle]
            self._tell(ev.RequestCancelled(self._waiting.pop()), "cancel")
            self._tell(ev.DeadlinePassed(), "deadline")

    def _arrive(self) -> None:
        self._number += 1
        request_id = RequestId(f"request-{self._number}")
        service = ServiceName(f"service-{self._number % _SERVICES}")
        request = InferenceRequest(request_id, service, service, 400, 600, max_tokens=10)
        self._waiting.append(request_id)
        self._tell(ev.RequestArrived(request), "arrival")

    def _tell(self, event: ev.SchedulerEvent, kind: str = "") -> None:
        began = process_time_ns()
        decisions = self._scheduler.handle(event, now=self._now)
        self.spent_ns[kind].append(process_time_ns() - began)
        for decision in decisions:
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        assert isinstance(decision, Dispatch), decision
        self._running = decision.request_id
        # The list is in no order; it only has to name those that wait.
        self._waiting.remove(decision.request_id)


def main() -> None:
    """Print a row per length, and the factors between them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3_000)
    parser.add_argument("--dimension", choices=list(FairnessDimension), default="slo_adherence")
    arguments = parser.parse_args()
    print("CPU time in us, median / mean")
    print("| waiting | " + " | ".join(_KINDS) + " |")
    print("| ---" * (len(_KINDS) + 1) + " |")
    medians: dict[int, list[float]] = {}
    for length in arguments.lengths:
        queue = _LongQueue(length, FairnessDimension(arguments.dimension))
        gc.collect()
        gc.freeze()
        queue.run(arguments.rounds)
        gc.unfreeze()
        spent = [[ns / 1e3 for ns in queue.spent_ns[kind]] for kind in _KINDS]
        medians[length] = [median(times) for times in spent]
        cells = [f"{median(times):.1f} / {fmean(times):.1f}" for times in spent]
        print(f"| {length} | " + " | ".join(cells) + " |", flush=True)
    first, *_, last = medians
    factors = [b / a for a, b in zip(medians[first], medians[last], strict=True)]
    print(f"| {last} / {first} | " + " | ".join(f"{factor:.2f}" for factor in factors) + " |")


if __name__ == "__main__":
    main()
