"""What a server's engine steps cost, learned online from its own streams.

A step takes about `c0 + c1*B + c2*C + c3*P` seconds: B sequences, C tokens of context, P tokens of
prefill in the step (measured vLLM servers fit within 3.5 %, docs/benchmarks.md). `c0..c2` come from
the pace of decoding streams, `c3` and a fixed overhead from first tokens.

Both fits are least squares of relative errors over exponentially forgotten samples, with a ridge
towards the prior: where the samples do not tell two terms apart, the prior's ratio decides, and
no direction can wind up as in plain recursive least squares with forgetting.
"""

from dataclasses import dataclass
from typing import Final

_SMALLEST: Final = 0.02
_LARGEST: Final = 50.0
"""Coefficients stay within these multiples of the prior, so that no forecast is absurd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimePrior:
    """Coefficients before the first sample, seconds per unit; one prior serves every engine.

    About an 8B model on a current data-centre GPU, between the fastest and slowest published fits.

    Attributes:
        overhead_s: API and network time of a request outside the engine's steps.
        step_s, per_sequence_s, per_context_token_s, per_prefill_token_s: c0, c1, c2, c3.
        adapter_load_s: time to load an adapter that is not resident.
        spread: logarithm of p90 over median of a forecast without samples.
    """

    overhead_s: float = 0.005
    step_s: float = 0.012
    per_sequence_s: float = 30e-6
    per_context_token_s: float = 80e-9
    per_prefill_token_s: float = 40e-6
    adapter_load_s: float = 0.1
    spread: float = 0.4


class DecodeFit:
    """c0, c1, c2 of one server.

    Attributes:
        step_s, per_sequence_s, per_context_token_s: the present estimates.
        samples: how many were learned.
    """

    __slots__ = (
        "_moments",
        "_prior",
        "per_context_token_s",
        "per_sequence_s",
        "samples",
        "step_s",
    )

    _FORGET = 0.985  # per sample, at 4 samples a second a memory of about 17 s
    _RIDGE = 0.05

    def __init__(self, prior: tuple[float, float, float]) -> None:
        """Start at `prior` (c0, c1, c2), seconds per unit, all > 0."""
        self._prior = prior
        self._moments = [0.0] * 9
        self.step_s, self.per_sequence_s, self.per_context_token_s = prior
        self.samples = 0

    def coefficients(self) -> tuple[float, float, float]:
        """(c0, c1, c2)."""
        return (self.step_s, self.per_sequence_s, self.per_context_token_s)

    def predict(self, sequences: float, context_tokens: float) -> float:
        """Seconds of a step without prefill."""
        return (
            self.step_s
            + self.per_sequence_s * sequences
            + self.per_context_token_s * context_tokens
        )

    def learn(self, *, sequences: float, context_tokens: float, step_s: float) -> None:
        """Take in the mean duration of the steps of one interval, prefill taken off; > 0."""
        p0, p1, p2 = self._prior
        x0 = p0 / step_s
        x1 = p1 * sequences / step_s
        x2 = p2 * context_tokens / step_s
        residual = 1.0 - x0 - x1 - x2
        row = (
            x0 * x0,
            x0 * x1,
            x0 * x2,
            x1 * x1,
            x1 * x2,
            x2 * x2,
            x0 * residual,
            x1 * residual,
            x2 * residual,
        )
        forget = self._FORGET
        self._moments = [forget * m + r for m, r in zip(self._moments, row, strict=True)]
        d0, d1, d2 = self._solve()
        self.step_s = p0 * _clamped(1.0 + d0)
        self.per_sequence_s = p1 * _clamped(1.0 + d1)
        self.per_context_token_s = p2 * _clamped(1.0 + d2)
        self.samples += 1

    def rescale(self, factor: float) -> None:
        """The server has become slower by `factor`: start anew from coefficients that are."""
        self.step_s *= factor
        self.per_sequence_s *= factor
        self.per_context_token_s *= factor
        self._prior = self.coefficients()
        self._moments = [0.0] * 9

    def _solve(self) -> tuple[float, float, float]:
        """Cholesky solution of the ridged normal equations; always well conditioned."""
        a00, a01, a02, a11, a12, a22, b0, b1, b2 = self._moments
        ridge = self._RIDGE
        l00 = (a00 + ridge) ** 0.5
        l10 = a01 / l00
        l20 = a02 / l00
        l11 = (a11 + ridge - l10 * l10) ** 0.5
        l21 = (a12 - l20 * l10) / l11
        l22 = (a22 + ridge - l20 * l20 - l21 * l21) ** 0.5
        y0 = b0 / l00
        y1 = (b1 - l10 * y0) / l11
        y2 = (b2 - l20 * y0 - l21 * y1) / l22
        d2 = y2 / l22
        d1 = (y1 - l21 * d2) / l11
        d0 = (y0 - l10 * d1 - l20 * d2) / l00
        return d0, d1, d2


class PrefillFit:
    """Fixed overhead and c3 of one server.

    Attributes:
        overhead_s, per_token_s: the present estimates.
        samples: how many were learned.
    """

    __slots__ = ("_moments", "_prior", "overhead_s", "per_token_s", "samples")

    _FORGET = 0.98
    _RIDGE = 0.05

    def __init__(self, prior: tuple[float, float]) -> None:
        """Start at `prior` (overhead in s, c3 in s per token), both > 0."""
        self._prior = prior
        self._moments = [0.0] * 5
        self.overhead_s, self.per_token_s = prior
        self.samples = 0

    def coefficients(self) -> tuple[float, float]:
        """(overhead, c3)."""
        return (self.overhead_s, self.per_token_s)

    def rescale(self, factor: float) -> None:
        """The engine has become slower by `factor`, its overhead has not: start anew."""
        self.per_token_s *= factor
        self._prior = self.coefficients()
        self._moments = [0.0] * 5

    def learn(self, *, tokens: float, seconds: float, measured_s: float) -> None:
        """Take in one first token.

        Args:
            tokens: prefill tokens between the start of the step under way and the first token.
            seconds: what they and the overhead took.
            measured_s: the whole wait, > 0, to which the error is relative.
        """
        p0, p1 = self._prior
        x0 = p0 / measured_s
        x1 = p1 * tokens / measured_s
        residual = seconds / measured_s - x0 - x1
        forget = self._FORGET
        a00, a01, a11, b0, b1 = (forget * m for m in self._moments)
        a00 += x0 * x0
        a01 += x0 * x1
        a11 += x1 * x1
        b0 += x0 * residual
        b1 += x1 * residual
        self._moments = [a00, a01, a11, b0, b1]
        a00 += self._RIDGE
        a11 += self._RIDGE
        determinant = a00 * a11 - a01 * a01
        self.overhead_s = p0 * _clamped(1.0 + (a11 * b0 - a01 * b1) / determinant)
        self.per_token_s = p1 * _clamped(1.0 + (a00 * b1 - a01 * b0) / determinant)
        self.samples += 1


def _clamped(multiple: float) -> float:
    return min(_LARGEST, max(_SMALLEST, multiple))
