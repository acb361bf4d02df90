"""How far forecasts were off, in all and by the load of the server when they were made."""

from collections.abc import Sequence
from typing import Any

from gateway.policy_benchmark.log_histogram import LogHistogram

_GROUPS = 10
_KINDS = ("ttft", "tpot")


class _Cell:
    """Absolute percentage errors of TTFT and TPOT, and how often the p90 held."""

    def __init__(self) -> None:
        self.errors = {kind: LogHistogram() for kind in _KINDS}
        self.covered = dict.fromkeys(_KINDS, 0)

    def add(self, kind: str, error: float, *, covered: bool) -> None:
        self.errors[kind].add(error)
        self.covered[kind] += covered

    def merge(self, other: "_Cell") -> None:
        for kind in _KINDS:
            self.errors[kind].merge(other.errors[kind])
            self.covered[kind] += other.covered[kind]

    def summary(self) -> dict[str, float | None]:
        """Median absolute percentage errors and coverages; None without samples."""
        result: dict[str, float | None] = {}
        for kind, errors in self.errors.items():
            result[f"{kind}_mdape"] = errors.quantile(0.5)
            share = self.covered[kind] / errors.count if errors.count else None
            result[f"{kind}_p90_coverage"] = share
        return result


class PredictionTally:
    """Judges forecasts of TTFT (from dispatch) and TPOT.

    The load is the number of requests in flight on the server when the forecast was made: one
    cell for each, merged into ten groups with about as many forecasts in each.
    """

    def __init__(self) -> None:
        """Start without samples."""
        self._cells: dict[int, _Cell] = {}

    def add(self, kind: str, actual_s: float, mean_s: float, p90_s: float, *, ahead: int) -> None:
        """Count one forecast of `kind` ttft or tpot, made with `ahead` requests on the server."""
        cell = self._cells.get(ahead)
        if cell is None:
            cell = self._cells[ahead] = _Cell()
        error = abs(mean_s - actual_s) / max(actual_s, 1e-6)
        cell.add(kind, error, covered=actual_s <= p90_s)

    def summary(self) -> dict[str, Any]:
        """Errors and coverages of all, and `by_load`, the least load first; None without any."""
        total = _Cell()
        for cell in self._cells.values():
            total.merge(cell)
        groups = [_group_summary(self._cells, loads) for loads in self._load_groups()]
        return {**total.summary(), "by_load": groups or None}

    def _load_groups(self) -> list[list[int]]:
        """Neighbouring loads, at most ten groups; one load is never split."""
        loads = sorted(self._cells)
        total = sum(self._cells[load].errors["ttft"].count for load in loads)
        groups: list[list[int]] = [[] for _ in range(_GROUPS)]
        seen = 0
        for load in loads:
            count = self._cells[load].errors["ttft"].count
            middle = (seen + count / 2) / max(1, total)
            groups[min(_GROUPS - 1, int(middle * _GROUPS))].append(load)
            seen += count
        return [group for group in groups if group]


def _group_summary(cells: dict[int, _Cell], loads: Sequence[int]) -> dict[str, Any]:
    merged = _Cell()
    for load in loads:
        merged.merge(cells[load])
    in_flight = [loads[0], loads[-1]]
    samples = merged.errors["ttft"].count
    return {"in_flight": in_flight, "samples": samples, **merged.summary()}
