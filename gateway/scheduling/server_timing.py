"""Everything learned about the speed of one server."""

from math import exp

from gateway.scheduling.forecast_error import ForecastError
from gateway.scheduling.prefill_queue import PrefillQueue
from gateway.scheduling.step_time import DecodeFit, PrefillFit, StepTimePrior

_PREFILL_RATE_MEMORY_S = 10.0
_LOAD_MEMORY = 0.1


class ServerTiming:
    """Fits, the state of the engine's prefills, and the errors of the forecasts so far.

    Attributes:
        decode, prefill: coefficients of the engine's step time.
        queue: where the engine stands in its prefills.
        ttft_error, tpot_error: of the forecasts given for this server.
        adapter_load_s: mean time that loading an adapter added to a first token.
        report: (last chunk, sequences, context tokens) at the last report of progress, or None.
        taken_reported: prefill tokens that the engine had taken at that report.
    """

    __slots__ = (
        "_prefill_rate",
        "_prefill_rate_at",
        "adapter_load_s",
        "decode",
        "prefill",
        "taken_reported",
        "queue",
        "report",
        "tpot_error",
        "ttft_error",
    )

    def __init__(
        self,
        *,
        decode: tuple[float, float, float],
        prefill: tuple[float, float],
        prior: StepTimePrior,
    ) -> None:
        """Start from coefficients of the pool, or of `prior` where there are none."""
        self.decode = DecodeFit(decode)
        self.prefill = PrefillFit(prefill)
        self.queue = PrefillQueue()
        self.ttft_error = ForecastError(bias=0.0, spread=prior.spread)
        self.tpot_error = ForecastError(bias=0.0, spread=prior.spread)
        self.adapter_load_s = prior.adapter_load_s
        self.report: tuple[float, float, float] | None = None
        self.taken_reported = 0
        self._prefill_rate = 0.0
        self._prefill_rate_at = 0.0

    def count_prefill(self, tokens: int, *, now: float) -> None:
        """A request with this many tokens to prefill was dispatched."""
        self._prefill_rate = self.prefill_rate(now) + tokens / _PREFILL_RATE_MEMORY_S
        self._prefill_rate_at = now

    def prefill_rate(self, now: float) -> float:
        """Prefill tokens per second, forgotten over about 10 s."""
        return self._prefill_rate * exp((self._prefill_rate_at - now) / _PREFILL_RATE_MEMORY_S)

    def learn_adapter_load(self, extra_s: float) -> None:
        """A first token that waited for an adapter came this much later than without."""
        self.adapter_load_s += _LOAD_MEMORY * (max(0.0, extra_s) - self.adapter_load_s)
