"""Synthetic stand-ins for the traces, with the same statistics, for when a file is not at hand.

Quantiles and the variation of the gaps were computed from the public traces (`traces.SOURCES`);
input and output are drawn independently of each other, which the real ones are not.
"""

from random import Random
from typing import NamedTuple

from gateway.policy_benchmark.traces import TraceRow

ROWS = 20_000
_PROBABILITIES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


class StandIn(NamedTuple):
    """Statistics of a trace: rate, variation of gaps, quantiles of lengths at `_PROBABILITIES`."""

    rate_rps: float
    gap_cv: float
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


STAND_INS = {
    "azure2023_conv": StandIn(
        5.53,
        1.09,
        (2, 29, 181, 207, 396, 1020, 1189, 2735, 4083, 4142, 6212, 14050),
        (7, 16, 41, 54, 85, 129, 395, 424, 451, 601, 954, 1000),
    ),
    "mooncake_conversation": StandIn(
        3.40,
        3.03,
        (891, 894, 901, 964, 2306, 6909, 15368, 27367, 39552, 85401, 121301, 126195),
        (1, 3, 10, 24, 156, 350, 472, 597, 698, 1120, 2000, 2000),
    ),
    "vtc_arena_clients": StandIn(
        2.50,
        1.10,
        (2, 2, 2, 5, 13, 40, 161, 432, 656, 929, 1018, 1021),
        (2, 3, 10, 18, 62, 211, 462, 513, 513, 785, 977, 977),
    ),
    "arxiv_summarization_lengths": StandIn(
        1.0,
        1.0,
        (1, 73, 747, 1242, 1986, 2730, 3370, 3702, 3813, 3934, 4012, 4054),
        (5, 36, 60, 78, 115, 167, 242, 372, 737, 3273, 3845, 4056),
    ),
}


def interpolate(probabilities: tuple[float, ...], values: tuple[int, ...], at: float) -> int:
    """The quantile at probability `at`, linear between the given ones."""
    for index in range(1, len(probabilities)):
        if at <= probabilities[index]:
            low, high = probabilities[index - 1], probabilities[index]
            share = (at - low) / (high - low)
            return round(values[index - 1] + share * (values[index] - values[index - 1]))
    return values[-1]


def stand_in_rows(name: str) -> list[TraceRow]:
    """Rows with the statistics of the trace of this name; always the same ones."""
    shape = STAND_INS[name]
    rng = Random(f"stand-in {name}")
    gamma_shape = 1.0 / shape.gap_cv**2
    at, rows = 0.0, []
    for _ in range(ROWS):
        at += rng.gammavariate(gamma_shape, 1.0 / (gamma_shape * shape.rate_rps))
        rows.append(
            TraceRow(
                at,
                interpolate(_PROBABILITIES, shape.inputs, rng.random()),
                interpolate(_PROBABILITIES, shape.outputs, rng.random()),
            )
        )
    return rows
