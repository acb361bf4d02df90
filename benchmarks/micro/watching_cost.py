"""CPU time of what watches one request; `python -m benchmarks.micro.watching_cost`.

So many requests that have just been answered are made into records, and the records are given to
each observer, in loops of their own: what is told is the least that a request costs there, with
warm caches. In a gateway under load it is more; `benchmarks.overhead.observing`
measures that. Run it with another `PYTHONPATH` to measure the compiled modules of a wheel.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median
from time import process_time_ns

from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.runtime.scheduler_driver import SchedulerDriver
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.model import (
    BackendId,
    Forecast,
    LLMServerPool,
    LLMService,
    RequestId,
    ServiceName,
    TokenUsage,
)
from gateway.scheduling.policy import SchedulingPolicy
from gateway.server.backend_directory import BackendDirectory
from gateway.server.options import PoolOptions
from gateway.server.request_progress import RequestProgress
from gateway.server.routes import Route, ServingPool
from gateway.telemetry import request_log
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recent_requests import RecentRequests
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.wire.openai_request import parse_json_request

_REQUESTS = 2_000
_CHAT = ServiceName("chat")
_PATH = "/v1/chat/completions"
_BODY = b'{"model":"chat","stream":true,"messages":[{"role":"user","content":"hello"}]}'


def _answered(number: int, route: Route) -> RequestProgress:
    """A streamed answer of 16 tokens, with everything known about it."""
    request_id = f"db5ba9d44fb5-{number:x}"
    progress = RequestProgress(
        request_id=request_id, lease_id=request_id, path=_PATH, started_at=1000.1234567
    )
    progress.parsed = parse_json_request(_PATH, _BODY)
    progress.route = route
    progress.arrived_at = 1000.12356
    dispatch = Dispatch(
        request_id=RequestId(request_id),
        backend_id=BackendId("http://10.0.0.1:8000"),
        model="chat",
        forecast=Forecast(0.0331234, 0.05123123, 0.0123123, 0.012313),
    )
    progress.dispatched(dispatch, asked_at=1000.1236, now=1000.1237)
    progress.overhead_s = 0.000123543
    progress.first_token_at = 1000.1678 + number * 1e-6
    progress.usage = TokenUsage(100, 16, 64, 16)
    progress.end(Outcome.OK)
    return progress


def _route() -> Route:
    service = LLMService(name=_CHAT, model="chat", priority=0)
    policy = SchedulingPolicy(pool=LLMServerPool(name="pool", services=(service,)))
    driver = SchedulerDriver(scheduler=build_scheduler(policy, Random(1)), clock=monotonic_clock)
    backends = BackendDirectory()
    return Route(
        ServingPool(pool=policy.pool, driver=driver, backends=backends, options=PoolOptions()),
        service,
    )


def _tell(name: str, action: Callable[[], None], rounds: int) -> None:
    taken = []
    for _ in range(rounds):
        before = process_time_ns()
        action()
        taken.append((process_time_ns() - before) / _REQUESTS / 1e3)
    print(f"{name:20} {min(taken):6.2f} {median(taken):8.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.micro.watching_cost", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=25, help=f"of {_REQUESTS:,} requests (25)")
    rounds = parser.parse_args().rounds
    route = _route()
    progresses = [_answered(number, route) for number in range(_REQUESTS)]
    records: list[RequestRecord] = []

    def make() -> None:
        records[:] = [each.record(status=200, now=1000.4567) for each in progresses]

    with tempfile.TemporaryFile(buffering=0) as out:
        each_alone = [EndedRequests(wall_clock=wall_clock) for _ in range(4)]
        RequestMetrics(services=[_CHAT], ended=each_alone[1])
        RecentRequests(ended=each_alone[2])
        RequestLog(out, ended=each_alone[3])

        def tell(ended: EndedRequests) -> None:
            for record in records:
                ended.request_ended(record)
            ended.settle()

        def write() -> None:
            tell(each_alone[3])
            out.seek(0)

        print(f"modules: {'plain Python' if request_log.__file__.endswith('.py') else 'compiled'}")
        print("us of a request         min   median")
        _tell("making the record", make, rounds)
        _tell("collecting", partial(tell, each_alone[0]), rounds)
        print("collecting, and:")
        _tell("metrics", partial(tell, each_alone[1]), rounds)
        _tell("recent requests", partial(tell, each_alone[2]), rounds)
        _tell("line of the log", write, rounds)


if __name__ == "__main__":
    main()
