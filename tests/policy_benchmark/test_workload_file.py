from pathlib import Path

import pytest

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.workload_file import built_in_names, load_workload, read_workload
from tests.policy_benchmark.workload_texts import SMALL

BUILT_IN = {
    "chat",
    "heavy-tail",
    "multi-lora",
    "multi-lora-off",
    "multi-lora-regression",
    "mixed-gpus",
    "lora-prefix",
    "ramp",
    "shared-prefix",
    "batch-interactive",
    "bursty",
    "half-critical",
    "all-critical",
    "one-bursting",
    "acu",
}


def fault_of(tmp_path: Path, old: str, new: str) -> str:
    path = tmp_path / "mine.yaml"
    assert old in SMALL
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(BenchmarkError) as error:
        read_workload(path)
    return str(error.value).removeprefix(str(path))


def test_every_workload_that_is_promised_is_built_in() -> None:
    assert set(built_in_names()) >= BUILT_IN


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_built_in_file_is_valid_and_has_its_own_name(name: str) -> None:
    assert load_workload(name).name == name


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(BenchmarkError, match="unknown workload 'chatt'; built in: acu, all-"):
        load_workload("chatt")


def test_a_users_own_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    assert load_workload(str(path)).services[0].name == "chat"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"none\.yaml: cannot read"):
        read_workload(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("count: 2", "count: 0", ":3: servers.count: Input should be greater than or equal to 1"),
        ("  - name: chat", "  - nam: chat", ":5: services.0.name: Field required"),
        ("ttft: 1s", "ttft: fast", ":7: services.0.objective.ttft: Value error, expected a dur"),
        ("ttft: 1s", "tpft: 1s", ":7: services.0.objective.tpft: Extra inputs are not permitted"),
        ("fixed: 500", "fixed: -1", ":6: services.0.lengths.input.fixed"),
        ("loads: [0.5]", "loads: [0.5, -1]", ":9: loads.1"),
        ("requests: 300", "requests: 3, duration: 2s", ":8: measure: Value error, give either"),
        ("{fixed: 100}", "{fixed: 100, uniform: [1, 2]}", ":6: services.0.lengths.output: Value"),
        ("loads: [0.5]", "loads: [0.5", ":10: not YAML"),
        ("loads: [0.5]", "load_unit: published", "published needs measure.duration"),
        ("loads: [0.5]", "faults: [{at: 1s, kill: 2}]", "at least one server must survive"),
    ],
)
def test_a_fault_is_named_with_its_line_and_key(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert expected in fault_of(tmp_path, old, new)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = SMALL.replace("count: 2", "count: 0").replace("ttft: 1s", "ttft: x")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BenchmarkError) as error:
        read_workload(path)
    assert [line.split(":")[1] for line in str(error.value).splitlines()] == ["3", "7"]


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(BenchmarkError, match=":1: expected a mapping"):
        read_workload(path)
