"""Whether one policy beats another on the same arrivals: paired differences by 60 s blocks."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from gateway.policy_benchmark.run_result import RunResult

_STUDENT_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""97.5 % quantiles of Student's t for 1..10 degrees of freedom; 2.0 is used beyond."""


def paired_difference(ours: Sequence[RunResult], theirs: Sequence[RunResult]) -> dict[str, Any]:
    """Mean difference in attainment and its 95 % interval, over blocks of equal arrivals.

    Args:
        ours: runs of one policy, one per seed.
        theirs: runs of the other, same workload, load and seeds, in the same order.
    """
    differences = [
        mine[1] / mine[0] - other[1] / other[0]
        for a, b in zip(ours, theirs, strict=True)
        for mine, other in zip(a["blocks"], b["blocks"], strict=True)
        if mine[0] and other[0]
    ]
    count = len(differences)
    if count < 2:
        return {"blocks": count, "mean": differences[0] if count else None, "low": None}
    mean = sum(differences) / count
    variance = sum((d - mean) ** 2 for d in differences) / (count - 1)
    quantile = _STUDENT_975[count - 2] if count - 2 < len(_STUDENT_975) else 2.0
    half = quantile * math.sqrt(variance / count)
    return {"blocks": count, "mean": mean, "low": mean - half, "high": mean + half}


def comparisons(runs: Sequence[RunResult], reference: str) -> list[dict[str, Any]]:
    """`reference` against every other policy, per workload, pool and load."""
    rows = []
    for where, group in groupby(sorted(runs, key=_place), key=_place):
        by_policy: dict[str, list[RunResult]] = {}
        for run in sorted(group, key=lambda r: r["seed"]):
            by_policy.setdefault(run["policy"], []).append(run)
        ours = by_policy.pop(reference, [])
        for policy, theirs in sorted(by_policy.items()):
            if [r["seed"] for r in ours] == [r["seed"] for r in theirs] and _alike(ours, theirs):
                names = dict(zip(("workload", "profile", "servers", "load"), where, strict=True))
                difference = paired_difference(ours, theirs)
                rows.append({**names, "policy": reference, "against": policy, **difference})
    return rows


def _alike(ours: Sequence[RunResult], theirs: Sequence[RunResult]) -> bool:
    return all(
        [block[0] for block in a["blocks"]] == [block[0] for block in b["blocks"]]
        for a, b in zip(ours, theirs, strict=True)
    )


def _place(run: RunResult) -> tuple[str, str, int, float]:
    return run["workload"], run["profile"], run["servers"], run["load"]
