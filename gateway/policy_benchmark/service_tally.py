"""What is counted of one service during a run."""

from collections import defaultdict
from dataclasses import dataclass, field

from gateway.policy_benchmark.log_histogram import LogHistogram

BUCKET_S = 5.0
"""Resolution of what is shown over time, by arrival of the request, in seconds."""
BLOCK_S = 60.0
"""Length of the blocks by which two policies on the same arrivals are compared, in seconds."""
WINDOW_S = 300.0
"""Window of the largest deficit in adherence, in seconds."""


@dataclass(slots=True)
class ServiceTally:
    """Counts over the measured requests that are feasible; tokens are true ones.

    Attributes:
        offered: requests.
        met: those that met their objective (completed, where there is none).
        refused: those that the policy gave up.
        failed: broken or unfinished ones.
        met_tokens: output tokens of met ones.
        served_tokens: 1 per input and 2 per output token of completed ones (VTC's cost).
        work_s: work of dispatched ones; `wasted_s` of those that were missed.
        buckets: [offered, met] by `BUCKET_S` of arrival.
        infeasible: requests that count nowhere else.
        done: output tokens of completed ones by `BUCKET_S` of their end.
    """

    offered: int = 0
    met: int = 0
    refused: int = 0
    failed: int = 0
    met_tokens: int = 0
    served_tokens: int = 0
    work_s: float = 0.0
    wasted_s: float = 0.0
    infeasible: int = 0
    done: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    ttft: LogHistogram = field(default_factory=LogHistogram)
    tpot: LogHistogram = field(default_factory=LogHistogram)
    ntpot: LogHistogram = field(default_factory=LogHistogram)
    buckets: defaultdict[int, list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0])
    )

    @property
    def attainment(self) -> float | None:
        """Met / offered; None without requests."""
        return self.met / self.offered if self.offered else None

    def merge(self, other: "ServiceTally") -> None:
        """Add another service's counts."""
        for name in (
            "offered",
            "met",
            "refused",
            "failed",
            "met_tokens",
            "served_tokens",
            "work_s",
            "wasted_s",
            "infeasible",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ttft.merge(other.ttft)
        self.tpot.merge(other.tpot)
        self.ntpot.merge(other.ntpot)
        for bucket, tokens in other.done.items():
            self.done[bucket] += tokens
        for bucket, (offered, met) in other.buckets.items():
            self.buckets[bucket][0] += offered
            self.buckets[bucket][1] += met

    def series(self) -> list[tuple[float, int, int]]:
        """(start in seconds, offered, met) of each bucket, in order of time."""
        pairs = [(key, self.buckets[key]) for key in sorted(self.buckets)]
        return [(key * BUCKET_S, pair[0], pair[1]) for key, pair in pairs]

    def blocks(self) -> list[list[int]]:
        """[offered, met] of each block, in order of time."""
        blocks: dict[int, list[int]] = {}
        for start, offered, met in self.series():
            block = blocks.setdefault(int(start // BLOCK_S), [0, 0])
            block[0] += offered
            block[1] += met
        return list(blocks.values())

    def largest_deficit(self, target: float) -> float:
        """Largest amount by which attainment over any `WINDOW_S` fell short of `target`."""
        series = self.series()
        worst, first, offered, met = 0.0, 0, 0, 0
        for start, more_offered, more_met in series:
            offered += more_offered
            met += more_met
            while series[first][0] <= start - WINDOW_S:
                offered -= series[first][1]
                met -= series[first][2]
                first += 1
            worst = max(worst, target - met / offered)
        return worst
