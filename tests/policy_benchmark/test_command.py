import gzip
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from gateway.policy_benchmark.command import add_arguments, run
from gateway.policy_benchmark.traces import SOURCES
from gateway.policy_benchmark.workload_file import built_in_names
from tests.policy_benchmark.workload_texts import SMALL


def benchmark(tmp_path: Path, *arguments: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    common = ["--traces", str(tmp_path), "--cache", str(tmp_path / "cache")]
    return run(parser.parse_args(["policies", *arguments, *common]))


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def report_of(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_bytes())
    return report


def test_runs_are_printed_and_written(
    tmp_path: Path, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    code = benchmark(
        tmp_path, "--workload", small, "--policies", "gateway,random", "--load", ".4,.6",
        "--seeds", "2", "--json", str(out), "--markdown", str(tmp_path / "out.md"),
    )  # fmt: skip
    assert code == 0
    report = report_of(out)
    made = {(r["policy"], r["load"], r["seed"]) for r in report["runs"]}
    assert made == {(p, x, s) for p in ("gateway", "random") for x in (0.4, 0.6) for s in (1, 2)}
    assert all(r["wall_s"] > 0 and r["workload"] == "small" for r in report["runs"])
    assert report["max_rate"] == []
    assert {c["against"] for c in report["comparisons"]} == {"random"}
    printed = capsys.readouterr().out
    assert "| random | 0.4 |" in printed
    assert (tmp_path / "out.md").read_text() in printed


def test_policies_see_the_same_arrivals(tmp_path: Path, small: str) -> None:
    out = tmp_path / "out.json"
    benchmark(
        tmp_path, "--workload", small, "--policies", "gateway,round_robin", "--seeds", "1",
        "--json", str(out),
    )  # fmt: skip
    runs = report_of(out)["runs"]
    offered = [[block[0] for block in r["blocks"]] for r in runs]
    assert offered[0] == offered[1]


def test_seeds_can_be_others_than_the_first(tmp_path: Path, small: str) -> None:
    out = tmp_path / "out.json"
    benchmark(
        tmp_path, "--workload", small, "--policies", "random", "--seeds", "2", "--first-seed", "7",
        "--json", str(out),
    )  # fmt: skip
    assert [r["seed"] for r in report_of(out)["runs"]] == [7, 8]


def test_a_repeated_run_comes_from_the_cache(tmp_path: Path, small: str) -> None:
    arguments = ("--workload", small, "--policies", "random", "--seeds", "1", "--json")
    benchmark(tmp_path, *arguments, str(tmp_path / "a.json"))
    benchmark(tmp_path, *arguments, str(tmp_path / "b.json"))
    benchmark(tmp_path, "--no-cache", *arguments, str(tmp_path / "c.json"))
    first, second, third = (report_of(tmp_path / f"{name}.json")["runs"][0] for name in "abc")
    assert second == first
    assert third["wall_s"] != first["wall_s"]
    assert {**third, "wall_s": 0} == {**first, "wall_s": 0}


def test_the_pool_can_be_another_one(tmp_path: Path, small: str) -> None:
    out = tmp_path / "out.json"
    benchmark(
        tmp_path, "--workload", small, "--policies", "random", "--seeds", "1", "--json", str(out),
        "--profile", "llama3.1-8b-h100-80", "--servers", "3",
    )  # fmt: skip
    run_made = report_of(out)["runs"][0]
    assert (run_made["profile"], run_made["servers"]) == ("llama3.1-8b-h100-80", 3)


def test_the_highest_rate_is_found(tmp_path: Path, small: str) -> None:
    out = tmp_path / "out.json"
    code = benchmark(
        tmp_path, "--workload", small, "--policies", "least_outstanding", "--seeds", "1",
        "--find-rate", ".9", "--json", str(out),
    )  # fmt: skip
    assert code == 0
    (found,) = report_of(out)["max_rate"]
    assert found["attainment"] == 0.9
    assert 0.7 < found["fraction_of_bound"] < 1.3
    assert found["rate_rps"] == pytest.approx(
        found["fraction_of_bound"] * report_of(out)["runs"][0]["bound_rps"]
    )


def test_plots_are_drawn(tmp_path: Path, small: str) -> None:
    plots = tmp_path / "plots"
    code = benchmark(
        tmp_path, "--workload", small, "--policies", "gateway,least_kv@1s", "--load", ".4,.6",
        "--seeds", "1", "--plots", str(plots),
    )  # fmt: skip
    assert code == 0
    names = {path.name for path in plots.glob("*.png")}
    assert {"small-attainment.png", "small-goodput.png", "small-ttft.png"} <= names
    assert {
        f"small-least_kv-1s-{what}.png" for what in ("adherence", "running", "kv", "adapters")
    } <= names


def test_with_several_services_the_price_of_fairness_is_drawn(tmp_path: Path) -> None:
    second = SMALL[SMALL.index("  - name: chat") : SMALL.index("measure:")]
    two = SMALL.replace("measure:", second.replace("chat", "other") + "measure:")
    (tmp_path / "two.yaml").write_text(two)
    benchmark(
        tmp_path, "--workload", str(tmp_path / "two.yaml"), "--policies", "random",
        "--load", ".4,.6", "--seeds", "1", "--plots", str(tmp_path / "plots"),
    )  # fmt: skip
    assert (tmp_path / "plots" / "small-trade.png").stat().st_size > 0


def test_the_list_names_workloads_policies_and_profiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(tmp_path, "--list") == 0
    printed = capsys.readouterr().out
    for name in (*built_in_names(), "clairvoyant_greedy", "llama3.1-8b-h100-64", "warm-up 60 s"):
        assert name in printed


def test_a_stand_in_for_a_missing_trace_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = benchmark(
        tmp_path, "--workload", "chat", "--policies", "random", "--load", ".5", "--quick",
        "--servers", "1", "--requests", "50",
    )  # fmt: skip
    assert code == 0
    assert "azure2023_conv.csv.gz is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--policies", "random"], "which workload?"),
        (["--workload", "nope"], "unknown workload 'nope'"),
        (["--workload", "chat", "--policies", "nope"], "unknown policy 'nope'"),
        (["--workload", "chat", "--policies", "gateway:magic"], "not built yet; there are: gatew"),
        (["--workload", "chat", "--load", "0"], "impossible load 0"),
        (["--workload", "chat", "--load", "fast"], "--load: 'fast' is not a number"),
        (["--workload", "chat", "--profile", "tpu"], "unknown profile 'tpu'"),
        (["--workload", "chat", "--servers", "0"], "--servers: expected 1 to 10000"),
        (["--workload", "acu", "--servers", "3"], "acu kills as many"),
        (["--workload", "chat", "--seeds", "-1"], "--seeds needs at least 1"),
        (["--workload", "chat", "--first-seed", "-1"], "--first-seed: expected at least 0"),
        (["--workload", "chat", "--requests", "0"], "--requests: expected at least 1"),
        (["--workload", "chat", "--find-rate", "1"], "between 0 and 1"),
        (["--workload", "chat", "--find-rate", "x"], "--find-rate"),
        (["--workload", "chat", "--gateways", "0"], "--gateways needs at least 1"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(
    tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(tmp_path, *arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_broken_trace_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "t_s,input_tokens,output_tokens\n0.0,5,oops\n"
    (tmp_path / SOURCES["azure2023_conv"].file).write_bytes(gzip.compress(text.encode()))
    assert benchmark(tmp_path, "--workload", "chat", "--policies", "random") == 2
    assert "azure2023_conv.csv.gz:2: broken line" in capsys.readouterr().err
