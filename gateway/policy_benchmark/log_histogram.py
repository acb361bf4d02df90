"""A histogram of positive values with buckets 1 % wide: quantiles in bounded memory."""

import math
from collections.abc import Mapping

_PER_E_FOLD = 1.0 / math.log(1.01)
_SMALLEST = 1e-6


class LogHistogram:
    """Counts values; its quantiles are right within 0.5 %."""

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self._buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Count a value; what is below 1e-6 counts as 1e-6."""
        bucket = math.floor(math.log(max(value, _SMALLEST)) * _PER_E_FOLD)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1

    def merge(self, other: "LogHistogram") -> None:
        """Add all of another histogram's values."""
        self.count += other.count
        for bucket, number in other._buckets.items():  # noqa: SLF001 - the same class
            self._buckets[bucket] = self._buckets.get(bucket, 0) + number

    def quantile(self, probability: float) -> float | None:
        """The value at or below which this share lies (nearest rank); None when empty."""
        rank = max(1, math.ceil(probability * self.count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return math.exp((bucket + 0.5) / _PER_E_FOLD)
        return None

    def percentiles(self) -> Mapping[str, float | None]:
        """p50, p90, p95 and p99."""
        shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
        return {name: self.quantile(share) for name, share in shares.items()}

    def cumulative(self) -> list[tuple[float, float]]:
        """Points (value, share at or below) of the distribution, at most 200, for plots."""
        points, seen = [], 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            points.append((math.exp((bucket + 1) / _PER_E_FOLD), seen / self.count))
        step = max(1, math.ceil(len(points) / 199))
        return [*points[:-1:step], *points[-1:]]
