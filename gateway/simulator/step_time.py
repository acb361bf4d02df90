"""How long a step takes: the linear formula, noise, and the variants' unmodelled terms."""

from math import exp
from random import Random

from gateway.simulator.engine_model import EngineOptions
from gateway.simulator.profiles import EngineProfile


class StepTime:
    """Step durations of one engine.

    Attributes:
        speed: divides every duration.
    """

    def __init__(self, profile: EngineProfile, options: EngineOptions, rng: Random) -> None:
        """Make durations for one engine; noise is drawn from `rng`."""
        self.speed = options.speed
        self._profile = profile
        self._options = options
        self._rng = rng
        self._c0 = profile.c0_s
        self._c1 = profile.c1_s
        self._c2 = profile.c2_s
        self._sigma = options.noise_sigma
        self._mu = -(options.noise_sigma**2) / 2
        variant = options.variant
        self._square = variant.batch_square_s
        self._stall_every_s = variant.stall_every_s

    def decode(self, sequences: int, context: int, adapters: int) -> float:
        """Seconds for `sequences` over `context` KV tokens with so many distinct adapters."""
        seconds = self._c0 + self._c1 * sequences + self._c2 * context
        if adapters:
            seconds *= 1.0 + self._profile.lora_any + self._profile.lora_each * adapters
        if self._square:
            seconds += self._square * sequences * sequences
        return seconds

    def prefill(self, tokens: int, attention: float) -> float:
        """Seconds for prefill `tokens`; `attention` is the sum over chunks of t*(s + t/2)."""
        return self._profile.c3_s * tokens + self._profile.c4_s * attention

    def elapsed(self, compute_s: float, load_s: float, at: float) -> float:
        """Duration of a step that begins at `at`: with noise, adapter loads, stalls and speed."""
        if self._sigma:
            compute_s *= exp(self._rng.gauss(self._mu, self._sigma))
        seconds = (compute_s + load_s) / self.speed
        every_s = self._stall_every_s
        if every_s and at // every_s != (at + seconds) // every_s:
            seconds += self._options.variant.stall_s
        return seconds

    def copy(self, rng: Random) -> "StepTime":
        """Return an independent copy that draws from `rng`."""
        twin = StepTime(self._profile, self._options, rng)
        twin.speed = self.speed
        return twin
