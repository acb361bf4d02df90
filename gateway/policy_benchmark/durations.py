"""Durations as people write them in workload files: `300ms`, `1.5 s`, `5min`, or seconds."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_PATTERN = re.compile(r"([0-9]*\.?[0-9]+)\s*(ms|s|min|h)")


def parse_duration(value: object) -> object:
    """Seconds of a text such as `300ms`; anything that is not text is left for validation.

    Raises:
        ValueError: the text is not a number with one of the units ms, s, min, h.
    """
    if not isinstance(value, str):
        return value
    match = _PATTERN.fullmatch(value.strip())
    if match is None:
        raise ValueError("expected a duration such as 300ms, 1.5s or 5min")
    return float(match[1]) * _SECONDS[match[2]]


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
"""Seconds, > 0."""
Instant = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
"""Seconds since the start of the simulation, >= 0."""
