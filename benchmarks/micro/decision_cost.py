"""CPU time of scheduling decisions; `python -m benchmarks.micro.decision_cost`.

A pool in a steady state of virtual time, driven by events alone: services with objectives and
adapters, prompts with shared prefixes, about 30 streams on each server. Every event is timed by
the process's CPU clock; a row shows medians in microseconds. The reference is an empty loop of
1,000 turns between two arrivals: it tells how much of the core this process had for itself.
`--waiting` adds a queue that no server is open for, of so many services.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush
from random import Random
from statistics import median
from time import process_time_ns

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
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
from gateway.scheduling.policy import CapacityPolicy, QueuePolicy, SchedulingPolicy

_STREAMS = 30
_STEP_S = 0.02
_TTFT_S = 0.04
_OUTPUT_TOKENS = 200
_LIFE_S = _OUTPUT_TOKENS * _STEP_S
_REPORT_S = 0.25
_ADAPTERS = 20
_SLOTS = 4
_KINDS = ("arrival", "first token", "progress", "finish")

_Due = tuple[float, int, str, str]


def _service(name: str, target: str, objective: LatencyObjective) -> LLMService:
    return LLMService(
        name=ServiceName(name),
        model=name,
        targets=(TargetModel(target),),
        objective=objective,
        priority=0,
    )


class _Pool:
    """One scheduler, its servers, and the calendar of what they will do."""

    def __init__(self, *, servers: int, waiting: int, seed: int) -> None:
        self._rng = Random(seed)
        self._names = [BackendId(f"10.0.{n // 256}.{n % 256}:8000") for n in range(servers)]
        adapters = [f"adapter-{n}" for n in range(_ADAPTERS)]
        self._services = [
            _service(f"service-{n}", name, LatencyObjective(ttft_s=1.0, tpot_s=0.05))
            for n, name in enumerate(adapters)
        ]
        self._stuck = [
            _service(f"stuck-{n}", "base", LatencyObjective(ttft_s=9_999.0, tpot_s=0.001))
            for n in range(waiting)
        ]
        policy = SchedulingPolicy(
            pool=LLMServerPool(name="pool", services=(*self._services, *self._stuck)),
            capacity=CapacityPolicy(default_max_loras=_SLOTS),
            queue=QueuePolicy(timeout_s=9_999.0),
        )
        self._scheduler = build_scheduler(policy, Random(seed))
        self._calendar: list[_Due] = []
        self._streams: dict[BackendId, dict[RequestId, float]] = {n: {} for n in self._names}
        self._chunks: dict[BackendId, float] = {}
        self._served_at: dict[RequestId, BackendId] = {}
        self._arrivals = 0
        self._due = 0
        self._now = 0.0
        self.waited = 0
        self.spent_ns: dict[str, list[int]] = defaultdict(list)
        models = (ServedModel("base"), *(ServedModel(name, parent="base") for name in adapters))
        load = BackendLoad(kv_blocks=28_000, block_tokens=16, max_loras=_SLOTS)
        for name in self._names:
            self._tell(ev.BackendJoined(name, models))
            self._tell(ev.BackendLoadReported(name, load, 0.0))
            self._plan(self._rng.random() * _STEP_S, "step", name)
            self._plan(self._rng.random() * _REPORT_S, "report", name)

    def run(self, *, warm_up_s: float, requests: int) -> None:
        """Fill the pool, let it settle, and time so many requests."""
        rate = _STREAMS * len(self._names) / _LIFE_S
        for service in self._stuck:
            self._request(service)
        for number in range(-int(rate * warm_up_s), requests):
            self._until(self._now + 1.0 / rate)
            if number == 0:
                self.spent_ns.clear()
                self.waited = 0
            self._request(self._services[int(_ADAPTERS * self._rng.random() ** 2)])
            self._time_reference()

    def _until(self, instant: float) -> None:
        while self._calendar and self._calendar[0][0] <= instant:
            self._now, _, kind, name = heappop(self._calendar)
            if kind == "step":
                if self._streams[BackendId(name)]:
                    self._chunks[BackendId(name)] = self._now
                self._plan(self._now + _STEP_S, "step", name)
            elif kind == "report":
                self._report(BackendId(name))
            elif kind == "first token":
                self._first_token(RequestId(name))
            else:
                self._finish(RequestId(name))
        self._now = instant

    def _plan(self, at: float, kind: str, name: str) -> None:
        self._due += 1
        heappush(self._calendar, (at, self._due, kind, name))

    def _request(self, service: LLMService) -> None:
        self._arrivals += 1
        tokens = self._rng.randrange(200, 1_000)
        shared = -1 - self._services.index(service) if service in self._services else 0
        request = InferenceRequest(
            id=RequestId(f"request-{self._arrivals}"),
            service=service.name,
            model=service.model,
            prompt_bytes=4 * tokens,
            body_bytes=4 * tokens + 200,
            prefix_blocks=(shared, *(self._arrivals * 100 + n for n in range(tokens // 128))),
        )
        chunks = tuple(self._chunks.items())
        self._chunks.clear()
        decisions = self._tell(ev.RequestArrived(request, chunks), "arrival")
        self.waited += not decisions
        self._carry_out(decisions)

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Dispatch):
                self._served_at[decision.request_id] = decision.backend_id
                self._plan(self._now + _TTFT_S, "first token", decision.request_id)

    def _first_token(self, request_id: RequestId) -> None:
        self._streams[self._served_at[request_id]][request_id] = self._now
        self._carry_out(self._tell(ev.FirstTokenReceived(request_id), "first token"))
        life_s = _LIFE_S * (0.5 + self._rng.random())
        self._plan(self._now + life_s, "finish", request_id)

    def _finish(self, request_id: RequestId) -> None:
        began_at = self._streams[self._served_at.pop(request_id)].pop(request_id)
        tokens = int((self._now - began_at) / _STEP_S)
        usage = TokenUsage(prompt_tokens=500, completion_tokens=tokens, events=tokens)
        self._carry_out(self._tell(ev.ResponseFinished(request_id, usage), "finish"))

    def _report(self, name: BackendId) -> None:
        streams = self._streams[name]
        progress = tuple((i, int((self._now - at) / _STEP_S) + 1) for i, at in streams.items())
        if progress:
            event = ev.ResponseProgressed(name, progress, self._now)
            self._carry_out(self._tell(event, "progress"))
        self._plan(self._now + _REPORT_S, "report", name)

    def _time_reference(self) -> None:
        began = process_time_ns()
        for _ in range(1_000):
            pass
        self.spent_ns["reference"].append(process_time_ns() - began)

    def _tell(self, event: ev.SchedulerEvent, kind: str = "") -> Sequence[Decision]:
        began = process_time_ns()
        decisions = self._scheduler.handle(event, now=self._now)
        self.spent_ns[kind].append(process_time_ns() - began)
        return decisions


def main() -> None:
    """Print one row per number of servers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=int, nargs="+", default=[8, 100, 1_000])
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--warm-up", type=float, default=2 * _LIFE_S, help="virtual seconds")
    parser.add_argument("--waiting", type=int, default=0, help="services with a stuck request")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("median CPU time in us; a request takes one arrival, one first token and one finish, and")
    print("its share of the reports of progress (of about 30 streams each, 4 a second)")
    print(
        "| servers | "
        + " | ".join(_KINDS)
        + " | progress per request | request | waited | reference |"
    )
    print("| --- " * (len(_KINDS) + 5) + "|")
    for servers in arguments.servers:
        pool = _Pool(servers=servers, waiting=arguments.waiting, seed=arguments.seed)
        pool.run(warm_up_s=arguments.warm_up, requests=arguments.requests)
        spent = [median(pool.spent_ns[kind]) / 1_000 for kind in _KINDS]
        share = spent[2] * (_LIFE_S / _REPORT_S) / _STREAMS
        whole = spent[0] + spent[1] + spent[3] + share
        print(
            f"| {servers} | "
            + " | ".join(f"{us:.0f}" for us in (*spent, share, whole))
            + f" | {pool.waited / arguments.requests:.0%}"
            + f" | {median(pool.spent_ns['reference']) / 1_000:.1f} |"
        )


if __name__ == "__main__":
    main()
