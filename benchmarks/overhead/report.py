"""Results as Markdown, and their place in a document."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.overhead.goals import GOALS
from benchmarks.overhead.results import Results
from benchmarks.overhead.systems import DIRECT

BEGIN = "<!-- overhead: written by python -m benchmarks.overhead run -->"
END = "<!-- overhead: end -->"
_SIGNIFICANT = 3

_COLUMNS: tuple[tuple[str, str, str, float], ...] = (
    # title, measure, figure, factor
    ("requests/s", "requests", "per_s", 1),
    ("CPU us / request", "requests", "cpu_us", 1),
    ("p50 / p99 ms, 64 connections", "requests", "p50_us,p99_us", 1e-3),
    ("p50 / p99 us, 1 connection", "latency", "p50_us,p99_us", 1),
    ("streams/s", "streams", "per_s", 1),
    ("CPU us / stream", "streams", "cpu_us", 1),
    ("CPU us / paced chunk", "chunks", "cpu_us", 1),
    ("gap p99 ms", "chunks", "gap_p99_us", 1e-3),
)
_LOAD_COLUMNS: tuple[tuple[str, str, str, float], ...] = (
    ("core at 25,600 chunks/s", "fast_chunks", "core", 1),
    ("of them delivered", "fast_chunks", "delivered", 1),
    ("late p99 ms", "fast_chunks", "late_p99_us", 1e-3),
    ("body 1 kB / 100 kB / 1 MB: p50 us", "bodies", "p50_us_1000,p50_us_100000,p50_us_1000000", 1),
    ("the same: CPU us", "bodies", "cpu_us_1000,cpu_us_100000,cpu_us_1000000", 1),
    ("gap p99 ms beside 1 MB bodies", "beside_large", "gap_p99_us", 1e-3),
    ("MB idle / 2,000 / 9,000 streams", "", "", 1),
    ("kB / stream", "streams_9000", "kb_per_stream", 1),
    ("of 9,000 served", "streams_9000", "served", 1),
)


def markdown(results: Results) -> str:
    """The tables of all systems, of the goals, and what they were measured on."""
    systems = list(results.versions)
    parts = [_facts(results), _table(results, systems, _COLUMNS)]
    parts.append(_table(results, systems, _LOAD_COLUMNS))
    parts.append(_goals(results))
    parts += [f"- {name} was left out: {why}" for name, why in results.skipped.items()]
    return "\n\n".join(part for part in parts if part)


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the marks of a document.

    Raises:
        ValueError: the marks are not there.
    """
    old = document.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def shown(value: float) -> str:
    """Three significant digits, thousands separated; a dash for what was not measured."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{_SIGNIFICANT}g}"


def _facts(results: Results) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    settings = ", ".join(f"{key} {value:g}" for key, value in results.settings.items())
    versions = "; ".join(f"{name}: {version}" for name, version in results.versions.items())
    return f"{facts}; {settings}. Medians over the rounds.\n{versions}."


def _table(
    results: Results, systems: Sequence[str], columns: Sequence[tuple[str, str, str, float]]
) -> str:
    rows = [["", *(title for title, *_ in columns)], ["---"] * (len(columns) + 1)]
    for system in systems:
        cells = [_cell(results, system, *column[1:]) for column in columns]
        if any(cell.strip("- /") for cell in cells):
            rows.append([system, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(results: Results, system: str, measure: str, figures: str, factor: float) -> str:
    if not measure:
        if system == DIRECT:
            return "-"
        wanted = (
            ("streams_2000", "idle_mb"),
            ("streams_2000", "open_mb"),
            ("streams_9000", "open_mb"),
        )
        return " / ".join(shown(results.median(m, system, figure)) for m, figure in wanted)
    medians = (results.median(measure, system, figure) for figure in figures.split(","))
    return " / ".join(shown(value * factor) for value in medians)


def _goals(results: Results) -> str:
    rows = ["| goal | bound | measured | reached |", "|---|---|---|---|"]
    for goal in GOALS:
        holds = goal.holds(results)
        sign = ">=" if goal.at_least else "<="
        reached = "not measured" if holds is None else "yes" if holds else "**no**"
        value = shown(goal.figure(results))
        rows.append(f"| {goal.text} | {sign} {goal.bound:,g} | {value} | {reached} |")
    return "\n".join(rows)
