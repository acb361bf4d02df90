"""What a run measured: every figure of every round, and medians and ratios over them."""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson


@dataclass(slots=True, kw_only=True)
class Results:
    """All figures of one run.

    Attributes:
        machine: what it ran on.
        settings: how long, how often, how many servers.
        versions: of each system measured.
        skipped: why a system was not measured.
        rounds: by measure, system and round: the figures, each under its name.
    """

    machine: dict[str, str] = field(default_factory=dict)
    settings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)

    def add(self, measure: str, system: str, figures: dict[str, float]) -> None:
        """Note the figures of one round."""
        self.rounds.setdefault(measure, {}).setdefault(system, []).append(figures)

    def values(self, measure: str, system: str, figure: str) -> list[float]:
        """One figure in every round, those that are no number left out."""
        return [value for value in self._all(measure, system, figure) if not math.isnan(value)]

    def median(self, measure: str, system: str, figure: str) -> float:
        """Median over the rounds; not a number without any."""
        values = self.values(measure, system, figure)
        return statistics.median(values) if values else math.nan

    def spread(self, measure: str, system: str, figure: str) -> tuple[float, float]:
        """Smallest and largest value; not numbers without any."""
        values = self.values(measure, system, figure)
        return (min(values), max(values)) if values else (math.nan, math.nan)

    def ratio(self, measure: str, figure: str, system: str, other: str) -> float:
        """Median over the rounds of `system` / `other`, round by round: noise they share goes."""
        return self._by_round(
            measure, figure, (system, other), lambda a, b: a / b if b else math.nan
        )

    def added(self, measure: str, figure: str, system: str, other: str) -> float:
        """Median over the rounds of `system` - `other`, round by round."""
        return self._by_round(measure, figure, (system, other), lambda a, b: a - b)

    def _by_round(
        self,
        measure: str,
        figure: str,
        systems: tuple[str, str],
        combine: Callable[[float, float], float],
    ) -> float:
        pairs = zip(*(self._all(measure, system, figure) for system in systems), strict=False)
        combined = [value for pair in pairs if not math.isnan(value := combine(*pair))]
        return statistics.median(combined) if combined else math.nan

    def _all(self, measure: str, system: str, figure: str) -> list[float]:
        taken = self.rounds.get(measure, {}).get(system, [])
        return [each.get(figure, math.nan) for each in taken]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read what `write` wrote; JSON has null where a figure is no number."""
        results = cls(**orjson.loads(path.read_bytes()))
        for systems in results.rounds.values():
            for taken in systems.values():
                for figures in taken:
                    figures.update({name: math.nan for name in figures if figures[name] is None})
        return results
