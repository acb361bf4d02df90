import pytest

from gateway.scheduling.model import CRITICAL, NON_CRITICAL, LatencyObjective, is_critical


def test_priorities_from_zero_up_are_critical() -> None:
    assert [is_critical(level) for level in (5, CRITICAL, NON_CRITICAL, -2)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("objective", "ttft_s", "e2e_s", "output_tokens", "is_met"),
    [
        pytest.param(LatencyObjective(), 99.0, 99.0, 1, True, id="no bound"),
        pytest.param(LatencyObjective(ttft_s=1.0), 1.0, 9.0, 10, True, id="ttft at its bound"),
        pytest.param(LatencyObjective(ttft_s=1.0), 1.1, 9.0, 10, False, id="ttft late"),
        pytest.param(LatencyObjective(tpot_s=0.1), 5.0, 5.89, 10, True, id="tpot met"),
        pytest.param(LatencyObjective(tpot_s=0.1), 5.0, 6.1, 10, False, id="tpot missed"),
        pytest.param(LatencyObjective(tpot_s=0.1), 5.0, 99.0, 1, True, id="tpot of one token"),
        pytest.param(LatencyObjective(tpot_s=0.1), 5.0, 99.0, 0, True, id="tpot of no token"),
        pytest.param(LatencyObjective(ntpot_s=0.1), 0.1, 1.0, 10, True, id="ntpot met"),
        pytest.param(LatencyObjective(ntpot_s=0.1), 0.1, 1.1, 10, False, id="ntpot missed"),
        pytest.param(LatencyObjective(ntpot_s=0.1), None, 0.1, 0, True, id="ntpot of no token"),
        pytest.param(
            LatencyObjective(ttft_s=1.0, tpot_s=0.1), None, 1.9, 10, True, id="whole answer in time"
        ),
        pytest.param(
            LatencyObjective(ttft_s=1.0, tpot_s=0.1), None, 2.0, 10, False, id="whole answer late"
        ),
        pytest.param(
            LatencyObjective(ttft_s=1.0),
            None,
            99.0,
            10,
            True,
            id="ttft of a whole answer is unseen",
        ),
        pytest.param(
            LatencyObjective(tpot_s=0.1), None, 1.0, 10, True, id="tpot of a whole answer met"
        ),
        pytest.param(
            LatencyObjective(tpot_s=0.1), None, 1.1, 10, False, id="tpot of a whole answer missed"
        ),
        pytest.param(LatencyObjective(), None, 99.0, 10, True, id="no bound, whole answer"),
    ],
)
def test_a_request_meets_an_objective_when_it_is_within_each_bound(
    objective: LatencyObjective,
    ttft_s: float | None,
    e2e_s: float,
    output_tokens: int,
    *,
    is_met: bool,
) -> None:
    assert objective.is_met(ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens) is is_met
