"""Usage objects in all spellings."""

import pytest

from gateway.scheduling.model import TokenUsage
from gateway.wire.token_usage import read_usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            TokenUsage(3, 4),
        ),
        (
            {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}},
            TokenUsage(3, None, 2),
        ),
        (
            {"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 0}},
            TokenUsage(3, 4, 0),
        ),
        ({"input_tokens": 3, "cache_read_input_tokens": 1}, TokenUsage(3, None, 1)),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, TokenUsage(3)),
        ({"prompt_tokens": 3, "prompt_tokens_details": [1]}, TokenUsage(3)),
        ({"prompt_tokens": -1, "completion_tokens": 1.5}, TokenUsage()),
        ({"prompt_tokens": True, "completion_tokens": "4"}, TokenUsage()),
        ({"prompt_tokens": 10**30, "completion_tokens": 0}, TokenUsage(None, 0)),
        ({}, TokenUsage()),
        (None, TokenUsage()),
        ([1], TokenUsage()),
    ],
)
def test_counts_are_read_and_the_rest_is_unknown(usage: object, expected: TokenUsage) -> None:
    assert read_usage(usage) == expected
