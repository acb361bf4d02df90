import pytest

from gateway.policy_benchmark.stand_ins import STAND_INS, interpolate, stand_in_rows

MEANS = {
    "azure2023_conv": (1155, 211),
    "mooncake_conversation": (12035, 343),
    "vtc_arena_clients": (136, 256),
    "arxiv_summarization_lengths": (2588, 291),
}
"""Means of the traces themselves, input and output."""


def test_values_between_quantiles_are_interpolated() -> None:
    assert interpolate((0.0, 0.5, 1.0), (0, 10, 110), 0.75) == 60


@pytest.mark.parametrize("name", sorted(MEANS))
def test_a_stand_in_has_the_means_of_its_trace_within_a_fifth(name: str) -> None:
    rows = stand_in_rows(name)
    assert sum(r.input_tokens for r in rows) / len(rows) == pytest.approx(MEANS[name][0], rel=0.2)
    assert sum(r.output_tokens for r in rows) / len(rows) == pytest.approx(MEANS[name][1], rel=0.2)


def test_a_stand_in_has_the_rate_of_its_trace() -> None:
    rows = stand_in_rows("azure2023_conv")
    rate = len(rows) / rows[-1].at_s
    assert rate == pytest.approx(STAND_INS["azure2023_conv"].rate_rps, rel=0.05)


def test_a_stand_in_is_always_the_same() -> None:
    assert stand_in_rows("azure2023_conv")[:5] == stand_in_rows("azure2023_conv")[:5]
