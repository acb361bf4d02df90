"""Durations as requests are judged by them, in seconds."""


def time_per_output_token(
    *, e2e_s: float, ttft_s: float | None, completion_tokens: int | None
) -> float | None:
    """TPOT: of the tokens after the first; None if no first token showed, or no second."""
    if ttft_s is None or completion_tokens is None or completion_tokens < 2:
        return None
    return (e2e_s - ttft_s) / (completion_tokens - 1)


def normalised_time_per_token(*, e2e_s: float, completion_tokens: int | None) -> float | None:
    """NTPOT: end-to-end latency over all tokens; None without any."""
    return e2e_s / completion_tokens if completion_tokens else None


def to_microseconds(seconds: float) -> float:
    """Rounded: what is below is noise, and half of what the log would have to write."""
    return (seconds * 1e6 + 0.5) // 1.0 / 1e6
