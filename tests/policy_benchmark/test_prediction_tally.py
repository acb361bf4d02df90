import pytest

from gateway.policy_benchmark.markdown_report import markdown
from gateway.policy_benchmark.prediction_tally import PredictionTally


def add(tally: PredictionTally, *, ahead: int, actual_s: float, mean_s: float = 1.0) -> None:
    for kind in ("ttft", "tpot"):
        tally.add(kind, actual_s, mean_s, 2.0 * mean_s, ahead=ahead)


def test_errors_are_told_apart_by_what_was_in_flight_on_the_server() -> None:
    tally = PredictionTally()
    for ahead in range(20):
        for _ in range(5):
            add(tally, ahead=ahead, actual_s=1.25 if ahead < 10 else 4.0)
    groups = tally.summary()["by_load"]
    assert [group["in_flight"] for group in groups] == [[2 * n, 2 * n + 1] for n in range(10)]
    assert [group["samples"] for group in groups] == [10] * 10
    assert groups[0]["ttft_mdape"] == pytest.approx(0.2, rel=0.01)
    assert groups[9]["tpot_mdape"] == pytest.approx(0.75, rel=0.01)
    assert [group["ttft_p90_coverage"] for group in groups] == [1.0] * 5 + [0.0] * 5


def test_requests_of_one_load_are_never_split() -> None:
    tally = PredictionTally()
    for _ in range(97):
        add(tally, ahead=4, actual_s=1.0)
    for ahead in (1, 8, 9):
        add(tally, ahead=ahead, actual_s=1.0)
    groups = tally.summary()["by_load"]
    assert [group["in_flight"] for group in groups] == [[1, 1], [4, 4], [8, 9]]


def test_without_forecasts_all_is_none() -> None:
    assert set(PredictionTally().summary().values()) == {None}


def test_the_report_shows_forecasts_by_load_where_there_are_any() -> None:
    tally = PredictionTally()
    add(tally, ahead=3, actual_s=1.25)
    nothing = PredictionTally().summary()
    runs = [run("gateway", tally.summary()), run("round_robin", nothing)]
    text = markdown({"runs": runs, "max_rate": []})
    assert "| gateway | 0.8 | all | 0.2" in text
    assert "| gateway | 0.8 | 3 to 3 | 0.2" in text
    assert "| round_robin | 0.8 | all" not in text
    assert "Forecasts" not in markdown({"runs": runs[1:], "max_rate": []})


def run(policy: str, predictor: dict[str, object]) -> dict[str, object]:
    times = {"p50": 1.0, "p90": 1.0, "p99": 1.0}
    return {
        "workload": "w",
        "profile": "p",
        "servers": 2,
        "policy": policy,
        "load": 0.8,
        "seed": 1,
        "bound_rps": 1.0,
        "offered": 1,
        "met": 1,
        "attainment_critical": 1.0,
        "attainment_non_critical": None,
        "goodput_rps": 1.0,
        "fraction_of_bound": 1.0,
        "token_goodput": 1.0,
        "shed_rate": 0.0,
        "wasted_work": 0.0,
        "ttft_s": times,
        "tpot_s": times,
        "fairness": {"gap": 0.0},
        "inversions": 0,
        "predictor": predictor,
    }
