"""The `usage` object of an answer, in any of the API's spellings."""

from typing import Final

from gateway.scheduling.model import TokenUsage

_MAX_COUNT: Final = 1 << 53


def read_usage(usage: object) -> TokenUsage:
    """Token counts of a decoded `usage`; what is missing or no count is None.

    Args:
        usage: decoded JSON: Chat and Completions say prompt_tokens and completion_tokens, Responses
            and Messages input_tokens and output_tokens.
    """
    if not isinstance(usage, dict):
        return TokenUsage()
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return TokenUsage(
        prompt_tokens=_count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        completion_tokens=_count(usage.get("completion_tokens", usage.get("output_tokens"))),
        cached_tokens=_count(usage.get("cache_read_input_tokens") if cached is None else cached),
    )


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
        return value
    return None
