"""Everything learned about the speed of one server."""

from math import exp, log
from typing import Final, NamedTuple

from gateway.scheduling.blended_forecast import BlendedForecast
from gateway.scheduling.forecast_error import ForecastError
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.prefill_queue import PrefillQueue
from gateway.scheduling.speed_change import SpeedChange
from gateway.scheduling.step_time import DecodeFit, PrefillFit

_PREFILL_RATE_MEMORY_S: Final = 10.0
_RECENT_S: Final = 1.0
_LOAD_MEMORY: Final = 0.1
_KNOWN_SAMPLES: Final = 20
"""Samples after which it is known what a server can never do."""
_IN_ONE_PIECE: Final = 0.05
"""Share of a step's duration below which tokens that follow each other were sent together."""
_LEAST_DECODING: Final = 0.3
"""Share of a step that decoding is believed to take at least."""


class Start(NamedTuple):
    """What a server is believed to be before it has shown anything.

    Attributes:
        decode: (c0, c1, c2); `prefill`: (overhead, c3).
        ttft_bias, tpot_bias: of the forecasts; `spread`: around them.
    """

    decode: tuple[float, float, float]
    prefill: tuple[float, float]
    ttft_bias: float
    tpot_bias: float
    spread: float
    adapter_load_s: float


class ServerTiming:
    """Fits, the state of the engine's prefills, and the errors of the forecasts so far.

    Attributes:
        start: what was believed before its first sample.
        decode, prefill: coefficients of the engine's step time.
        queue: where the engine stands in its prefills.
        ttft_error, tpot_error: of the forecasts that decisions are made by.
        blend, told_error: what is told of TPOT, and the errors of that; its p90 is the pool's.
        changed_at: when the server last changed its speed; what was forecast before teaches
            nothing.
        adapter_load_s: mean time that loading an adapter added to a first token.
        report: (last chunk, sequences, context tokens) at the last report of progress, or None.
        taken_reported: prefill tokens that the engine had taken at that report.
    """

    __slots__ = (
        "_prefill_rate",
        "_prefill_rate_at",
        "_recent_prefill_rate",
        "_speed",
        "adapter_load_s",
        "blend",
        "changed_at",
        "decode",
        "prefill",
        "queue",
        "report",
        "start",
        "taken_reported",
        "told_error",
        "tpot_error",
        "ttft_error",
    )

    def __init__(self, start: Start) -> None:
        """Know nothing but `start`."""
        self.start = start
        self.decode = DecodeFit(start.decode)
        self.prefill = PrefillFit(start.prefill)
        self.queue = PrefillQueue()
        self.ttft_error = ForecastError(bias=start.ttft_bias, spread=start.spread)
        self.tpot_error = ForecastError(bias=start.tpot_bias, spread=start.spread)
        self.blend = BlendedForecast()
        self.told_error = ForecastError(bias=start.tpot_bias, spread=start.spread)
        self.changed_at = 0.0
        self.adapter_load_s = start.adapter_load_s
        self.report: tuple[float, float, float] | None = None
        self.taken_reported = 0
        self._speed = SpeedChange()
        self._prefill_rate = 0.0
        self._recent_prefill_rate = 0.0
        self._prefill_rate_at = 0.0

    @property
    def unknown(self) -> bool:
        """Whether nothing was learned of its speed yet."""
        return not self.decode.samples and not self.prefill.samples

    @property
    def is_known(self) -> bool:
        """Whether enough was learned to judge what the server can never do."""
        return self.decode.samples >= _KNOWN_SAMPLES and self.prefill.samples >= _KNOWN_SAMPLES

    def outran(self, prediction: Prediction, tpot_s: float) -> bool:
        """Whether an answer came faster than the engine can be: in one piece, it shows no pace."""
        return self.is_known and tpot_s < _IN_ONE_PIECE * prediction.raw_tpot_s

    @property
    def trust(self) -> float:
        """How far to go by forecasts for this server, 0 to 1.

        TPOT counts once there is some: answers of one token have none.
        """
        trust = self.ttft_error.trust
        return min(trust, self.tpot_error.trust) if self.tpot_error.samples else trust

    def count_prefill(self, tokens: int, *, now: float) -> None:
        """A request with this many tokens to prefill was dispatched."""
        self._prefill_rate = self.prefill_rate(now) + tokens / _PREFILL_RATE_MEMORY_S
        self._recent_prefill_rate = self.recent_prefill_rate(now) + tokens / _RECENT_S
        self._prefill_rate_at = now

    def prefill_rate(self, now: float) -> float:
        """Prefill tokens per second, forgotten over about 10 s."""
        return self._prefill_rate * exp((self._prefill_rate_at - now) / _PREFILL_RATE_MEMORY_S)

    def recent_prefill_rate(self, now: float) -> float:
        """Prefill tokens per second, forgotten over about 1 s: a short answer lives no longer."""
        return self._recent_prefill_rate * exp((self._prefill_rate_at - now) / _RECENT_S)

    def learn_adapter_load(self, extra_s: float) -> None:
        """A first token that waited for an adapter came this much later than without."""
        self.adapter_load_s += _LOAD_MEMORY * (max(0.0, extra_s) - self.adapter_load_s)

    def learn_steps(
        self,
        *,
        sequences: float,
        context_tokens: float,
        step_s: float,
        prefill_tokens: float,
        at: float,
    ) -> None:
        """Take in the mean duration of the steps of one interval, and what each prefilled.

        Where the speed has changed, everything starts anew from forecasts that are scaled.
        """
        prefill_s = self.prefill.per_token_s * prefill_tokens
        expected_s = self.decode.predict(sequences, context_tokens) + prefill_s
        factor = self._speed.factor(log(step_s / expected_s))
        if factor is not None:
            self.decode.rescale(factor)
            self.prefill.rescale(factor)
            self.blend.rescale(factor)
            self.changed_at = at
        self.decode.learn(
            sequences=sequences,
            context_tokens=context_tokens,
            step_s=max(_LEAST_DECODING * step_s, step_s - prefill_s),
        )
