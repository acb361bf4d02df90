"""The highest load at which a policy still attains a target."""

from collections.abc import Callable

LOWEST = 0.01
HIGHEST = 8.0
TOLERANCE = 0.01


_CHECKED_BELOW = (0.9, 0.8, 0.7, 0.6)
"""Fractions of a found load at which the target must hold, too: some policies are metastable."""


def highest_load(
    attainment_at: Callable[[float], float], target: float, *, tolerance: float = TOLERANCE
) -> float | None:
    """Bracket from .5 by factors of two, bisect, then check some lower loads.

    Args:
        attainment_at: attainment, in 0..1, at a load; need not be monotone.
        target: attainment wanted.
        tolerance: relative width of the final bracket, whose lower end is the answer.

    Returns:
        A load that attained the target, as did `_CHECKED_BELOW` of it; None if there is none.
    """
    known: dict[float, bool] = {}

    def holds(load: float) -> bool:
        if load not in known:
            known[load] = attainment_at(load) >= target
        return known[load]

    ceiling = HIGHEST
    while True:
        found = _edge(holds, ceiling, tolerance)
        if found is None:
            return None
        failed = next((found * f for f in _CHECKED_BELOW if not holds(found * f)), None)
        if failed is None:
            return found
        ceiling = failed


def _edge(holds: Callable[[float], bool], ceiling: float, tolerance: float) -> float | None:
    """A load below `ceiling` that holds, with one within the tolerance above it that does not."""
    low = high = min(0.5, ceiling)
    if high < ceiling and holds(high):
        while high < ceiling:
            high = min(low * 2.0, ceiling)
            if high == HIGHEST and holds(high):
                return high
            if high == ceiling or not holds(high):
                break
            low = high
    else:
        while True:
            low = high / 2.0
            if low < LOWEST:
                return None
            if holds(low):
                break
            high = low
    while high - low > tolerance * high:
        middle = (low + high) / 2.0
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
