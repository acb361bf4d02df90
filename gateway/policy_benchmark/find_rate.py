"""The highest load at which a policy still attains a target."""

from collections.abc import Callable

LOWEST = 0.01
HIGHEST = 8.0
TOLERANCE = 0.01


def highest_load(
    attainment_at: Callable[[float], float], target: float, *, tolerance: float = TOLERANCE
) -> float | None:
    """Bracket by doubling from .5, then bisect until the bracket is within `tolerance` (relative).

    Args:
        attainment_at: attainment, in 0..1, at a load; need not be exactly monotone.
        target: attainment wanted.
        tolerance: relative width of the final bracket, whose lower end is the answer.

    Returns:
        A load that attained the target, or None if not even `LOWEST` did.
    """
    low, high = 0.5, 0.5
    if attainment_at(0.5) >= target:
        while high < HIGHEST:
            high = low * 2.0
            if attainment_at(high) < target:
                break
            low = high
        else:
            return low
    else:
        while True:
            low = high / 2.0
            if low < LOWEST:
                return None
            if attainment_at(low) >= target:
                break
            high = low
    while high - low > tolerance * high:
        middle = (low + high) / 2.0
        if attainment_at(middle) >= target:
            low = middle
        else:
            high = middle
    return low
