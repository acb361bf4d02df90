"""What the gateway costs beside other proxies: `python -m benchmarks.overhead {set-up,run,report}`.

`run` starts fake servers, a load generator and the systems on loopback, interleaves their rounds,
and stops everything it started. CPU time of what is measured is the figure to trust; rates and
latencies need a quiet machine.
"""

import argparse
import os
import platform
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.overhead.measures import MEASURES, Measure
from benchmarks.overhead.report import markdown, put_into
from benchmarks.overhead.results import Results
from benchmarks.overhead.rig import Rig, Running, alone, passing_rig
from benchmarks.overhead.set_up import DEFAULT_FOLDER, set_up
from benchmarks.overhead.systems import (
    DIRECT,
    NAMES,
    SLOW,
    NotThere,
    System,
    make_system,
)

_LONGEST_S = 1_500


def main() -> int:
    """Run one command; return the exit status."""
    args = _parser().parse_args()
    if args.command == "set-up":
        return 1 if set_up(args.peers) else 0
    if args.command == "report":
        _show(Results.read(args.json), args)
        return 0
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _give_up)  # so that what was started is ended
    signal.alarm(args.longest)
    results = Results(machine=_machine())
    try:
        _run(args, results)
    finally:
        if args.json is not None:
            results.write(args.json)
    _show(results, args)
    return 0


def _give_up(number: int, frame: object) -> None:  # noqa: ARG001 (a signal handler)
    raise SystemExit(f"given up: {signal.Signals(number).name}")


def _run(args: argparse.Namespace, results: Results) -> None:
    measures = [
        measure
        for measure in MEASURES
        if args.measures in (None, []) or measure.name in args.measures
    ]
    checkouts = dict(pair.split("=", 1) for pair in args.also)
    names = [*args.systems, *checkouts]
    results.settings = {
        "rounds": args.rounds,
        "seconds per measure": args.seconds,
        "servers": args.servers,
    }
    with passing_rig(servers=args.servers, cores=args.cores, seconds=args.seconds) as rig:
        systems = {}
        for name in names:
            paths = {key: Path(value) for key, value in checkouts.items()}
            try:
                site = rig.site(name)
                systems[name] = (make_system(name, site, peers=args.peers, checkouts=paths), site)
            except NotThere as reason:
                _leave_out(results, name, str(reason))
        _interleaved(rig, systems, [m for m in measures if not m.fresh], results, args.rounds)
        for measure in measures:
            if measure.fresh:
                _fresh(rig, systems, measure, results)


def _interleaved(
    rig: Rig,
    systems: dict[str, tuple[System, object]],
    measures: list[Measure],
    results: Results,
    rounds: int,
) -> None:
    """All systems run, one at a time is awake; round after round."""
    with ExitStack() as stack:
        running: list[Running] = []
        for name in tuple(systems):
            try:
                running.append(stack.enter_context(rig.running(*systems[name])))
            except RuntimeError as trouble:
                _leave_out(results, name, str(trouble))
                del systems[name]
                continue
            results.versions[name] = running[-1].version
        for number in range(rounds):
            for measure in measures:
                for system in running:
                    if system.slow and not measure.of_slow:
                        continue
                    with alone(system, running):
                        figures = measure.take(rig, system)
                    results.add(measure.name, system.name, figures)
                    _say(f"round {number + 1}", measure.name, system.name, figures)


def _fresh(
    rig: Rig, systems: dict[str, tuple[System, object]], measure: Measure, results: Results
) -> None:
    for name, (system, site) in systems.items():
        if name == DIRECT or name in SLOW:
            continue
        with rig.running(system, site) as running:
            figures = measure.take(rig, running)
        results.versions.setdefault(name, system.version)
        results.add(measure.name, name, figures)
        _say("fresh", measure.name, name, figures)


def _leave_out(results: Results, name: str, why: str) -> None:
    results.skipped[name] = why
    print(f"{name} is left out: {why}", file=sys.stderr, flush=True)


def _say(when: str, measure: str, system: str, figures: dict[str, float]) -> None:
    told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"{time.strftime('%H:%M:%S')} {when:8} {measure:12} {system:14} {told}", flush=True)


def _show(results: Results, args: argparse.Namespace) -> None:
    text = markdown(results)
    print(text)
    pictures = []
    if args.plots is not None:
        from benchmarks.overhead.plots import draw  # noqa: PLC0415 (matplotlib is an extra)

        pictures = draw(results, args.plots)
    if args.docs is not None:
        places = [os.path.relpath(picture, args.docs.parent) for picture in pictures]
        put_into(args.docs, "\n\n".join([text, *(f"![{Path(p).stem}]({p})" for p in places)]))


def _machine() -> dict[str, str]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "measured": time.strftime("%Y-%m-%d"),
        "on": f"{os.cpu_count()} cores of {model}",
        "Linux": platform.release(),
        "Python": " ".join(sys.version.split()),
    }


def _cores(text: str) -> tuple[int, int]:
    measured, rig = text.split(",")
    return int(measured), int(rig)


def _default_cores() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    setting = commands.add_parser("set-up", help="install what is compared with")
    run = commands.add_parser("run", help="measure")
    report = commands.add_parser("report", help="table and plots of an earlier run")
    for command in (setting, run):
        command.add_argument(
            "--peers", type=Path, default=DEFAULT_FOLDER, help=f"their folder ({DEFAULT_FOLDER})"
        )
    run.add_argument("--rounds", type=int, default=5, help="how many (5)")
    run.add_argument("--seconds", type=float, default=1.5, help="of each measure (1.5)")
    run.add_argument("--servers", type=int, default=8, help="fake servers (8)")
    run.add_argument(
        "--systems", type=_names, default=list(NAMES), help=f"comma-separated ({','.join(NAMES)})"
    )
    known = ",".join(measure.name for measure in MEASURES)
    run.add_argument("--measures", type=_names, help=f"comma-separated ({known})")
    run.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=CHECKOUT",
        help="another checkout of this project, with a .venv of its own; NAME begins with 'ours'",
    )
    run.add_argument(
        "--cores",
        type=_cores,
        default=_default_cores(),
        metavar="MEASURED,RIG",
        help="cores to pin to (the last and the first usable one)",
    )
    run.add_argument("--longest", type=int, default=_LONGEST_S, help="give up after seconds")
    for command in (run, report):
        command.add_argument("--json", type=Path, help="every figure", required=command is report)
        command.add_argument("--docs", type=Path, help="document to put the tables into")
        command.add_argument("--plots", type=Path, help="folder for overhead-*.svg")
    return parser


if __name__ == "__main__":
    sys.exit(main())
