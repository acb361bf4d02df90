"""A forecast together with what it was made from."""

from typing import NamedTuple


class Prediction(NamedTuple):
    """A forecast and what it was made from, kept so that its outcome can be learned.

    Attributes:
        ttft_s, ttft_p90_s, tpot_s, tpot_p90_s: as in Forecast.
        raw_ttft_s, raw_tpot_s: before the correction of their bias.
        stepping_s: the part of TTFT that is neither overhead nor prefill.
        prefill_tokens: what is prefilled until the first token, others' included.
        uncached_tokens: the request's own tokens among them.
        own_prefill_s, own_step_s: what the request's own prefill takes, and what its own tokens
            add to each step.
        cold_adapter: whether an adapter has to be loaded.
        ttft_steepness, tpot_steepness: of the distributions; see miss_risk.py.
    """

    ttft_s: float
    ttft_p90_s: float
    tpot_s: float
    tpot_p90_s: float
    raw_ttft_s: float
    raw_tpot_s: float
    stepping_s: float
    prefill_tokens: int
    uncached_tokens: int
    own_prefill_s: float
    own_step_s: float
    cold_adapter: bool
    ttft_steepness: float
    tpot_steepness: float
