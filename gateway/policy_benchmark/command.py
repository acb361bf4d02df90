"""`llm-gateway benchmark policies`: the command line of this package."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.benchmark_runs import (
    Finished,
    Laboratory,
    RateSearch,
    Task,
    run_tasks,
)
from gateway.policy_benchmark.comparison import comparisons
from gateway.policy_benchmark.markdown_report import markdown
from gateway.policy_benchmark.plots import write_plots
from gateway.policy_benchmark.policies import OURS, policy_kinds
from gateway.policy_benchmark.request_of_user import TraceSettings, UserRequest, user_request
from gateway.policy_benchmark.result_cache import ResultCache, code_fingerprint
from gateway.policy_benchmark.run_result import RunKey
from gateway.policy_benchmark.simulation import RunOptions
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.workload_file import built_in_names, load_workload
from gateway.policy_benchmark.workload_model import Workload
from gateway.policy_benchmark.workload_plan import WorkloadPlan, build_plan
from gateway.runtime.clock import monotonic_clock
from gateway.simulator.profiles import PROFILES

_CACHE = Path.home() / ".cache" / "llm-gateway" / "benchmark"


def add_arguments(parser: ArgumentParser) -> None:
    """Fill the parser of `llm-gateway benchmark`."""
    parser.add_argument("kind", choices=["policies"], help="what is compared")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    parser.add_argument("--workload", metavar="NAME[,...]", help="built-in names or .yaml files")
    parser.add_argument("--policies", metavar="NAME[,...]", help="policies to compare")
    parser.add_argument("--profile", metavar="NAME", help="engine profile instead of its own")
    parser.add_argument("--servers", metavar="N", type=int, help="servers instead of its own")
    parser.add_argument("--load", metavar="X[,...]", help="fractions of the closed-form bound")
    parser.add_argument("--seeds", metavar="N", type=int, help="number of seeds (default 3)")
    parser.add_argument(
        "--first-seed", metavar="N", type=int, default=1, help="the lowest of them (default 1)"
    )
    parser.add_argument("--requests", metavar="N", type=int, help="measured requests of a run")
    parser.add_argument("--warmup", metavar="SECONDS", type=float, help="before they are measured")
    parser.add_argument(
        "--find-rate", metavar="SHARE[,...]", help="highest rate at this attainment"
    )
    parser.add_argument(
        "--engine",
        choices=["standard", "irregular"],
        default="standard",
        help="irregular: superlinear batches, stalls, speculative decoding",
    )
    parser.add_argument("--gateways", metavar="N", type=int, default=1, help="sharing the pool")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all results here")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables here")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="write plots here")
    parser.add_argument("--traces", metavar="DIR", type=Path, help="where the traces are")
    parser.add_argument("--quick", action="store_true", help="short runs; all workloads")
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default: cores)")
    parser.add_argument("--cache", metavar="DIR", type=Path, default=_CACHE, help="of results")
    parser.add_argument("--no-cache", action="store_true", help="run again what was run before")


def run(arguments: Namespace) -> int:
    """Run the benchmark; 2 for wrong use."""
    traces = arguments.traces or TraceSettings().traces
    library = TraceLibrary(traces)
    try:
        if arguments.list:
            _print_list(library)
            return 0
        request = user_request(arguments)
        targets = _targets(arguments.find_rate)
        plans = [build_plan(workload, library) for workload in request.workloads]
        for notice in library.notices:
            print(f"notice: {notice}", file=sys.stderr)
        report = _report(arguments, request, plans, targets)
        text = markdown(report)
        print(text)
        if arguments.json is not None:
            arguments.json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        if arguments.markdown is not None:
            arguments.markdown.write_text(text, encoding="utf-8")
        if arguments.plots is not None:
            write_plots(report, arguments.plots)
    except BenchmarkError as error:
        print(f"llm-gateway benchmark: {error}", file=sys.stderr)
        return 2
    return 0


def _report(
    arguments: Namespace,
    request: UserRequest,
    plans: list[WorkloadPlan],
    targets: list[float],
) -> dict[str, Any]:
    if arguments.gateways < 1:
        raise BenchmarkError("--gateways needs at least 1")
    laboratory = Laboratory(
        cache=ResultCache(None if arguments.no_cache else arguments.cache, code_fingerprint()),
        options=RunOptions(gateways=arguments.gateways),
        clock=monotonic_clock,
    )
    tasks = [(plan, task) for plan in plans for task in _tasks(request, plan, targets)]
    workers = arguments.workers or os.cpu_count() or 1
    with _progress(len(tasks)) as done:
        finished = run_tasks(laboratory, tasks, workers=workers, done=done)
    return _collected(finished, arguments)


def _collected(finished: list[Finished], arguments: Namespace) -> dict[str, Any]:
    runs = [run for made, _ in finished for run in made]
    return {
        "runs": runs,
        "max_rate": [found for _, found in finished if found is not None],
        "comparisons": [] if arguments.find_rate else comparisons(runs, OURS),
        "gateways": arguments.gateways,
        "engine": arguments.engine,
    }


def _tasks(request: UserRequest, plan: WorkloadPlan, targets: list[float]) -> list[Task]:
    if targets:
        return [
            RateSearch(p, target, request.seeds) for target in targets for p in request.policies
        ]
    return [
        RunKey(policy, load, seed)
        for load in request.loads_of(plan.workload)
        for policy in request.policies
        for seed in request.seeds
    ]


def _targets(text: str | None) -> list[float]:
    try:
        targets = [float(word) for word in text.split(",")] if text else []
    except ValueError as error:
        raise BenchmarkError(f"--find-rate: {error}") from error
    if not all(0.0 < target < 1.0 for target in targets):
        raise BenchmarkError("--find-rate: expected an attainment between 0 and 1, such as .99")
    return targets


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal (where rich is installed), else nothing."""
    try:
        from rich.console import Console  # noqa: PLC0415 - of an extra
        from rich.progress import Progress  # noqa: PLC0415 - of an extra
    except ImportError:
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda: bar.advance(task)


def _print_list(library: TraceLibrary) -> None:
    print("workloads:")
    for name in built_in_names():
        print(_described(load_workload(name), library))
    for notice in library.notices:
        print(f"notice: {notice}")
    print("policies (a name may end in @INTERVAL, that of the poller: least_kv@1s):")
    for name, kind in policy_kinds().items():
        print(f"  {name:<24} polled every {kind.poll_interval_s * 1000:g} ms")
    print(f"profiles: {', '.join(PROFILES)}")


def _described(workload: Workload, library: TraceLibrary) -> str:
    plan = build_plan(workload, library)
    servers, measure = workload.servers, workload.measure
    slots = f", {servers.max_loras} adapter slots" if servers.max_loras else ""
    speeds = f", speeds {servers.speeds}" if set(servers.speeds) != {1.0} else ""
    length = f"{measure.requests} requests" if measure.requests else f"{measure.duration:g} s"
    lines = [
        f"  {workload.name}: {workload.description}",
        f"    {servers.count} x {servers.profile}{slots}{speeds}; warm-up {measure.warmup:g} s,"
        f" then {length}; loads {', '.join(f'{load:g}' for load in workload.loads)}"
        f" of {plan.bound_rps:.1f} requests/s"
        + (" (rates as published)" if workload.load_unit == "published" else ""),
    ]
    for spec in workload.services:
        bounds = spec.objective.model_dump(exclude_none=True) if spec.objective else {}
        shown = ", ".join(f"{key} {value:g}" for key, value in bounds.items()) or "no objective"
        lines.append(f"    {spec.name}: {shown} ({spec.priority or 'priority by objective'})")
    return "\n".join(lines)
