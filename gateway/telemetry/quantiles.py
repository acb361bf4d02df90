"""Quantiles of a histogram's counts, as Prometheus' histogram_quantile estimates them."""

from collections.abc import Sequence


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """The value below which `share` of the values lie; None without values.

    Args:
        share: in (0, 1).
        bounds: upper bounds of the buckets, ascending.
        counts: values per bucket, and above the last bound: one more than `bounds`. Within a
            bucket values count as spread evenly; those above the last bound count as that bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    seen = 0
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and seen + count >= wanted:
            return lower + (bound - lower) * (wanted - seen) / count
        seen += count
        lower = bound
    return lower
