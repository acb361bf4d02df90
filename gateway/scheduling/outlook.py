"""What forecasts for one server start from, worked out once and kept until something changes."""

from typing import Final, NamedTuple


class Outlook(NamedTuple):
    """The terms of a full forecast that do not depend on the request.

    Attributes:
        busy: whether anything runs there.
        base_s: seconds of a step without prefill, as things stand.
        room: prefill tokens that fit into a step, >= 1.
        per_sequence_s, per_context_token_s, per_prefill_token_s, overhead_s: coefficients.
        stretch: by how much prefills lengthen the steps, at most by `most_interference_s` each.
        recent_share: of the last second, what the prefills sent there in it take.
        ttft_median, ttft_p90, tpot_median, tpot_p90: factors on raw forecasts.
        ttft_steepness, tpot_steepness: of the distributions around them; see miss_risk.py.
        trust: how far decisions should go by these forecasts, 0 to 1.
    """

    busy: bool
    base_s: float
    room: int
    per_sequence_s: float
    per_context_token_s: float
    per_prefill_token_s: float
    overhead_s: float
    stretch: float
    most_interference_s: float
    recent_share: float
    ttft_median: float
    ttft_p90: float
    ttft_steepness: float
    tpot_median: float
    tpot_p90: float
    tpot_steepness: float
    trust: float


class Glance(NamedTuple):
    """A rough forecast for comparing many servers, linear in the request.

    TTFT is about `ttft_s + ttft_per_token_s * prompt tokens`, TPOT about `tpot_s +
    tpot_per_token_s * its tokens of context`; `certain_share` of that TPOT is a lower bound.
    """

    ttft_s: float
    ttft_per_token_s: float
    tpot_s: float
    tpot_per_token_s: float
    certain_share: float
    prefill_per_token_s: float


NO_OUTLOOK: Final = Outlook(
    busy=False,
    base_s=0.0,
    room=1 << 30,
    per_sequence_s=0.0,
    per_context_token_s=0.0,
    per_prefill_token_s=0.0,
    overhead_s=0.0,
    stretch=1.0,
    most_interference_s=0.0,
    recent_share=0.0,
    ttft_median=1.0,
    ttft_p90=1.0,
    ttft_steepness=1.0,
    tpot_median=1.0,
    tpot_p90=1.0,
    tpot_steepness=1.0,
    trust=1.0,
)
NO_GLANCE: Final = Glance(0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NEVER: Final = float("-inf")
"""An outlook that is fresh until then has to be made anew."""
