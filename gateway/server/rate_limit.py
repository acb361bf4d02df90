"""A limit per minute, as a bucket that fills evenly and holds one minute's worth."""

import math


class RateLimit:
    """Lets `per_minute` units pass in a minute on average, and as many at once after a pause.

    What is taken may exceed what is there (the tokens of an answer are known at its end only):
    the debt is paid back before anything else passes. Times are seconds of one monotonic clock.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, *, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def wait_s(self, amount: float, *, now: float) -> float:
        """Seconds until `amount` passes; 0 if it does now. More than a minute's worth passes when
        the bucket is full, or it would never pass.
        """  # noqa: D205 - one sentence each
        missing = min(amount, self.per_minute) - self._filled(now)
        return max(0.0, missing * 60.0 / self.per_minute)

    def take(self, amount: float, *, now: float) -> None:
        """Use `amount` up; a negative amount gives back what was taken and not used."""
        self._level = min(self._filled(now) - amount, float(self.per_minute))

    def remaining(self, *, now: float) -> int:
        """Whole units that pass now."""
        return max(0, math.floor(self._filled(now)))

    def reset_s(self, *, now: float) -> float:
        """Seconds until the bucket is full."""
        return (self.per_minute - self._filled(now)) * 60.0 / self.per_minute

    def change(self, per_minute: int, *, now: float) -> None:
        """Hold to another limit from now on; the share that is used up stays."""
        self._level = self._filled(now) * per_minute / self.per_minute
        self.per_minute = per_minute

    def _filled(self, now: float) -> float:
        passed_s = now - self._at
        if passed_s > 0:
            filled = self._level + passed_s * self.per_minute / 60.0
            self._level = min(filled, float(self.per_minute))
            self._at = now
        return self._level


def format_reset(seconds: float) -> str:
    """A time as OpenAI writes it in `x-ratelimit-reset-*`: `120ms`, `8.64s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1_000)
    if milliseconds < 1_000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1_000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text
