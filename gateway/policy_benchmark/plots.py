"""Plots of the results (PNG); needs matplotlib, of the `bench` extra."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.run_result import RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KV_USE = 2
"""Column of a server's samples."""
_LABELS_INSIDE = 5
"""Labels up to which the legend stands inside the plot."""


def write_plots(report: dict[str, Any], directory: Path) -> list[Path]:
    """All plots that the runs allow; returns the files.

    Raises:
        BenchmarkError: matplotlib is not installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    runs = sorted(report["runs"], key=lambda run: str(run["workload"]))
    for workload, group in groupby(runs, key=lambda run: str(run["workload"])):
        made = list(group)
        draw: dict[str, tuple[str, Callable[[Axes], None]]] = {
            "attainment": ("attainment", partial(_against_load, runs=made, key="attainment")),
            "goodput": ("goodput", partial(_against_load, runs=made, key="goodput_rps")),
            "ttft": ("time to first token", partial(_ttft, runs=made)),
        }
        if len(made[0]["services"]) > 1:
            draw["trade"] = ("what fairness costs", partial(_trade, runs=made))
        top = max(run["load"] for run in made)
        for run in made:
            if run["load"] == top and run["seed"] == min(r["seed"] for r in made):
                draw |= _over_time(run)
        for label, (title, paint) in draw.items():
            path = directory / f"{workload}-{label}.png"
            _draw(path, f"{workload}: {title}", paint)
            written.append(path)
    return written


def _over_time(run: RunResult) -> "dict[str, tuple[str, Callable[[Axes], None]]]":
    """What one run did over time: by file label the title and how it is drawn."""
    policy = str(run["policy"])
    name = policy.replace(":", "-").replace("@", "-")
    of_run = f"of {policy} at load {run['load']:g}"
    return {
        f"{name}-adherence": (f"attainment of services {of_run}", partial(_adherence, run=run)),
        f"{name}-running": (f"servers {of_run}", partial(_servers, run=run, column=1)),
        f"{name}-kv": (f"servers {of_run}", partial(_servers, run=run, column=2)),
        f"{name}-adapters": (f"servers {of_run}", partial(_servers, run=run, column=3)),
    }


def _draw(path: Path, title: str, paint: "Callable[[Axes], None]") -> None:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise BenchmarkError("plots need matplotlib: pip install .[bench]") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    paint(axes)
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        # Beside the plot once there are many, so that no line is hidden.
        beside = len(labels) > _LABELS_INSIDE
        axes.legend(
            fontsize="small",
            loc="center left" if beside else "best",
            bbox_to_anchor=(1.0, 0.5) if beside else None,
        )
    figure.savefig(path, dpi=110)


def _against_load(axes: "Axes", runs: Sequence[RunResult], key: str) -> None:
    """One line per policy: the mean over seeds at each load."""
    for policy, group in groupby(sorted(runs, key=_policy), key=_policy):
        by_load: dict[float, list[float]] = {}
        for run in group:
            if run[key] is not None:
                by_load.setdefault(run["load"], []).append(run[key])
        loads = sorted(by_load)
        means = [sum(by_load[load]) / len(by_load[load]) for load in loads]
        axes.plot(loads, means, marker="o", label=policy)
    if key == "goodput_rps":
        axes.axhline(runs[0]["bound_rps"], color="black", linestyle="--", label="bound")
    axes.set_xlabel("load (1 = closed-form bound)")
    axes.set_ylabel(key)
    axes.set_ylim(bottom=0)


def _trade(axes: "Axes", runs: Sequence[RunResult]) -> None:
    """Total attainment against the gap between services: one line per policy over its loads."""
    for policy, group in groupby(sorted(runs, key=_policy), key=_policy):
        by_load: dict[float, list[tuple[float, float]]] = {}
        for run in group:
            gap = run["fairness"]["gap"]
            if gap is not None:
                by_load.setdefault(run["load"], []).append((gap, run["attainment"]))
        loads = sorted(by_load)
        gaps = [fmean(gap for gap, _ in by_load[load]) for load in loads]
        totals = [fmean(total for _, total in by_load[load]) for load in loads]
        axes.plot(gaps, totals, marker="o", label=policy)
        for load, gap, total in zip(loads, gaps, totals, strict=True):
            axes.annotate(f"{load:g}", (gap, total), textcoords="offset points", xytext=(4, 4))
    axes.set_xlabel("gap between the best and the worst service's attainment")
    axes.set_ylabel("attainment of all requests (numbers: load)")


def _ttft(axes: "Axes", runs: Sequence[RunResult]) -> None:
    """Cumulative distribution of the TTFT at the highest load, first seed."""
    top = max(run["load"] for run in runs)
    seed = min(run["seed"] for run in runs)
    for run in runs:
        if run["load"] == top and run["seed"] == seed and run["ttft_cdf"]:
            axes.plot(*zip(*run["ttft_cdf"], strict=True), label=run["policy"])
    axes.set_xscale("log")
    axes.set_xlabel(f"TTFT (s) at load {top:g}")
    axes.set_ylabel("share of requests")


def _adherence(axes: "Axes", run: RunResult) -> None:
    """Attainment per service over time, by arrival, in buckets of 5 s."""
    for service, series in run["adherence"].items():
        points = [(start, met / offered) for start, offered, met in series if offered]
        if points:
            axes.plot(*zip(*points, strict=True), label=service)
    axes.set_xlabel("time of arrival (s)")
    axes.set_ylabel("attainment")
    axes.set_ylim(0, 1.02)


def _servers(axes: "Axes", run: RunResult, column: int) -> None:
    """One line per server: running requests, KV use or active adapters over time."""
    for server, samples in run["servers_over_time"].items():
        if samples:
            axes.plot(
                [sample[0] for sample in samples],
                [sample[column] for sample in samples],
                label=server,
                # What is counted does not change between two reports by halves.
                drawstyle="default" if column == _KV_USE else "steps-post",
            )
    axes.set_xlabel("time (s)")
    axes.set_ylabel(("", "running requests", "KV use", "active adapters")[column])


def _policy(run: RunResult) -> str:
    return str(run["policy"])
