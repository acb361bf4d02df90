"""The results as Markdown tables: one per workload, a row per policy and load."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from gateway.policy_benchmark.run_result import RunResult

_COLUMNS = (
    "policy | load | attainment | Critical | Non-Critical | goodput /s | of bound | tokens/s |"
    " shed | wasted | TTFT p50 / p90 / p99 s | TPOT p50 / p90 / p99 ms | gap | inversions"
)
_FORECAST_COLUMNS = "policy | load | requests there | TTFT error | TTFT p90 | TPOT error | TPOT p90"


def markdown(report: dict[str, Any]) -> str:
    """Tables of runs (pooled over seeds; percentiles are means over seeds), rates, comparisons."""
    parts: list[str] = []
    runs = sorted(report["runs"], key=_pool)
    for (workload, profile, servers), group in groupby(runs, key=_pool):
        made = list(group)
        bound = made[0]["bound_rps"]
        parts.append(f"## {workload}: {servers} x {profile}, bound {bound:.1f} requests/s\n")
        parts.append(_table(_COLUMNS, _rows(made)))
        parts += _forecasts(made)
    if report["max_rate"]:
        parts.append("## Highest rate at an attainment\n")
        columns = "workload | policy | attainment | requests/s | of bound"
        parts.append(_table(columns, (_rate_row(rate) for rate in report["max_rate"])))
    if report.get("comparisons"):
        parts.append("## Difference in attainment on the same arrivals (95 % interval)\n")
        columns = "workload | load | policy | against | mean | low | high | blocks"
        parts.append(_table(columns, (_comparison_row(c) for c in report["comparisons"])))
    return "\n".join(parts)


def _forecasts(runs: Sequence[RunResult]) -> list[str]:
    """Errors and coverages of forecasts, in all and by load; nothing where none were made."""
    rows = list(_forecast_rows(runs))
    title = "### Forecasts: median absolute error, share of outcomes within the p90\n"
    return [title, _table(_FORECAST_COLUMNS, rows)] if rows else []


def _forecast_rows(runs: Sequence[RunResult]) -> Iterable[str]:
    for (load, policy), group in groupby(sorted(runs, key=_place), key=_place):
        made = [run["predictor"] for run in group if run["predictor"]["by_load"]]
        if not made:
            continue
        yield _forecast_row(policy, load, "all", made)
        groups = min(len(predictor["by_load"]) for predictor in made)
        for number in range(groups):
            parts = [predictor["by_load"][number] for predictor in made]
            low = min(part["in_flight"][0] for part in parts)
            high = max(part["in_flight"][1] for part in parts)
            yield _forecast_row(policy, load, f"{low} to {high}", parts)


def _forecast_row(policy: str, load: float, there: str, parts: Sequence[dict[str, Any]]) -> str:
    keys = ("ttft_mdape", "ttft_p90_coverage", "tpot_mdape", "tpot_p90_coverage")
    return " | ".join((policy, f"{load:g}", there, *(_number(_mean(parts, key)) for key in keys)))


def _place(run: RunResult) -> tuple[float, str]:
    return run["load"], run["policy"]


def _pool(run: RunResult) -> tuple[str, str, int]:
    return run["workload"], run["profile"], run["servers"]


def _table(columns: str, rows: Iterable[str]) -> str:
    rule = " | ".join("---" for _ in columns.split("|"))
    return "\n".join([f"| {columns} |", f"| {rule} |", *(f"| {row} |" for row in rows), ""])


def _rows(runs: Sequence[RunResult]) -> Iterable[str]:
    for (load, policy), group in groupby(sorted(runs, key=_place), key=_place):
        seeds = list(group)
        offered = sum(run["offered"] for run in seeds)
        met = sum(run["met"] for run in seeds)
        yield " | ".join(
            (
                policy,
                f"{load:g}",
                _number(met / offered if offered else None),
                _number(_mean(seeds, "attainment_critical")),
                _number(_mean(seeds, "attainment_non_critical")),
                _number(_mean(seeds, "goodput_rps"), 1),
                _number(_mean(seeds, "fraction_of_bound")),
                _number(_mean(seeds, "token_goodput"), 0),
                _number(_mean(seeds, "shed_rate")),
                _number(_mean(seeds, "wasted_work")),
                _percentiles(seeds, "ttft_s", 1.0, 3),
                _percentiles(seeds, "tpot_s", 1000.0, 1),
                _number(_mean([run["fairness"] for run in seeds], "gap")),
                str(sum(run["inversions"] for run in seeds)),
            )
        )


def _mean(records: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [record[key] for record in records if record[key] is not None]
    return sum(values) / len(values) if values else None


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percentiles(runs: Sequence[RunResult], key: str, scale: float, digits: int) -> str:
    times = [run[key] for run in runs]
    means = (_mean(times, name) for name in ("p50", "p90", "p99"))
    return " / ".join("-" if m is None else f"{m * scale:.{digits}f}" for m in means)


def _rate_row(rate: dict[str, Any]) -> str:
    return " | ".join(
        (
            rate["workload"],
            rate["policy"],
            f"{rate['attainment']:g}",
            _number(rate["rate_rps"], 1),
            _number(rate["fraction_of_bound"]),
        )
    )


def _comparison_row(row: dict[str, Any]) -> str:
    numbers = (_number(row.get(key), 4) for key in ("mean", "low", "high"))
    head = (row["workload"], f"{row['load']:g}", row["policy"], row["against"])
    return " | ".join((*head, *numbers, str(row["blocks"])))
