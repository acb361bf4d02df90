import pytest
from pydantic import ValidationError

from gateway.policy_benchmark.workload_model import Adapters, Arrivals, Lengths, Stage, TokenCounts


def test_quantiles_must_cover_everything_and_not_decrease() -> None:
    TokenCounts(quantiles={0.0: 1, 0.5: 10, 1.0: 100})
    for wrong in ({0.0: 1, 0.5: 10}, {0.0: 5, 0.5: 4, 1.0: 9}):
        with pytest.raises(ValidationError, match="quantiles need 0 and 1"):
            TokenCounts(quantiles=wrong)


def test_lengths_have_one_source() -> None:
    with pytest.raises(ValidationError, match="give exactly one of trace"):
        Lengths(trace="azure2023_conv", input=TokenCounts(fixed=1))
    with pytest.raises(ValidationError, match="input and output belong together"):
        Lengths(input=TokenCounts(fixed=1))


def test_arrivals_have_one_kind() -> None:
    with pytest.raises(ValidationError, match="give one of trace, cv, stages, bulk"):
        Arrivals(trace="azure2023_conv", cv=1.0)


def test_stages_without_any_rate_never_end_and_are_refused() -> None:
    with pytest.raises(ValidationError, match="rate above 0"):
        Arrivals(stages=(Stage(duration=1.0, rate=0.0),))
    with pytest.raises(ValidationError, match="goes on for ever"):
        Arrivals(
            stages=(Stage(duration=1.0, rate=1.0), Stage(duration=1.0, rate=0.0)), repeat=False
        )


def test_adapters_are_counted_or_listed_not_both() -> None:
    with pytest.raises(ValidationError, match="either count or shares"):
        Adapters(count=3, shares=(1.0,))
