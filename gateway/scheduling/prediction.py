"""A forecast together with what it was made from."""


class Prediction:
    """A forecast and what it was made from, kept so that its outcome can be learned.

    No named tuple: compiled, its numbers are fields of a struct in C, and eight are made of every
    request.

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

    __slots__ = (
        "cold_adapter",
        "own_prefill_s",
        "own_step_s",
        "prefill_tokens",
        "raw_tpot_s",
        "raw_ttft_s",
        "stepping_s",
        "tpot_p90_s",
        "tpot_s",
        "tpot_steepness",
        "ttft_p90_s",
        "ttft_s",
        "ttft_steepness",
        "uncached_tokens",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - made on the hot path, at one place
        self,
        ttft_s: float,
        ttft_p90_s: float,
        tpot_s: float,
        tpot_p90_s: float,
        raw_ttft_s: float,
        raw_tpot_s: float,
        stepping_s: float,
        prefill_tokens: int,
        uncached_tokens: int,
        own_prefill_s: float,
        own_step_s: float,
        cold_adapter: bool,  # noqa: FBT001
        ttft_steepness: float,
        tpot_steepness: float,
    ) -> None:
        """Take them in the order of the attributes."""
        self.ttft_s = ttft_s
        self.ttft_p90_s = ttft_p90_s
        self.tpot_s = tpot_s
        self.tpot_p90_s = tpot_p90_s
        self.raw_ttft_s = raw_ttft_s
        self.raw_tpot_s = raw_tpot_s
        self.stepping_s = stepping_s
        self.prefill_tokens = prefill_tokens
        self.uncached_tokens = uncached_tokens
        self.own_prefill_s = own_prefill_s
        self.own_step_s = own_step_s
        self.cold_adapter = cold_adapter
        self.ttft_steepness = ttft_steepness
        self.tpot_steepness = tpot_steepness
