import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings.loading import load_file, load_settings, read_file
from gateway.settings.problems import ConfigurationError

WriteConfig = Callable[[str], Path]


def test_without_any_source_the_defaults_hold() -> None:
    settings = load_settings({})
    assert settings.port == 8080
    assert settings.origins == {}


def test_a_file_goes_over_defaults(write_config: WriteConfig) -> None:
    assert load_settings({}, write_config("port: 9001")).port == 9001


def test_a_variable_goes_over_the_file(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9002")
    assert load_settings({}, write_config("port: 9001")).port == 9002


def test_a_flag_goes_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9002")
    assert load_settings({"port": "9003"}).port == 9003


def test_the_variable_gateway_config_names_the_file(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", str(write_config("port: 9001")))
    assert load_settings({}).port == 9001


def test_each_value_tells_where_it_came_from(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SEED", "7")
    path = write_config("port: 9001")
    origins = load_settings({"log_level": "debug"}, path).origins
    assert origins == {"port": str(path), "seed": "GATEWAY_SEED", "log_level": "--log-level"}


def test_backends_in_a_variable_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_BACKENDS", "http://a:8000,http://b:8000")
    assert load_settings({}).backends == ("http://a:8000", "http://b:8000")


def test_pools_in_a_variable_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_POOLS", '[{"name": "llama", "servers": ["http://a:8000"]}]')
    assert load_settings({}).pools[0].servers == ("http://a:8000",)


def test_a_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_POOLS", "[{")
    with pytest.raises(ConfigurationError, match=r"^GATEWAY_POOLS: expected JSON"):
        load_settings({})


def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_QUEUE_TIMEOUTS", "1s")
    with pytest.raises(
        ConfigurationError,
        match=r"^GATEWAY_QUEUE_TIMEOUTS: unknown variable; did you mean GATEWAY_QUEUE_TIMEOUT\?$",
    ):
        load_settings({})


def test_a_file_checked_alone_does_not_see_the_environment(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9002")
    assert load_file(write_config("seed: 1")).port == 8080


def test_an_empty_file_changes_nothing(write_config: WriteConfig) -> None:
    assert load_file(write_config("# nothing yet\n")).port == 8080


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent.yaml: cannot be read: No such file"):
        read_file(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port: [8080", r"gateway.yaml:\d+: not valid YAML"),
        ("port: 1\nhost: a\nport: 2\n", "gateway.yaml:3: not valid YAML: key 'port' stands here"),
        ("port: 1\nport: 1\n", "key 'port' stands here twice"),
        ("- port\n", "expected keys and values"),
        ("pools:\n  - {name: a, name: b}\n", "gateway.yaml:2: .* key 'name' stands here twice"),
        ("port: \x00", "not valid YAML"),
        ("pools: [{name: 2024-13-45}]", "not valid YAML: month must be in 1..12"),
        (f"port: {'9' * 5_000}", "not valid YAML: Exceeds the limit"),
        ("backends: &own [*own]", "not valid YAML: found unconstructable recursive node"),
        (f"backends: {'[' * 500}", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused(
    write_config: WriteConfig, text: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        read_file(write_config(text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_bytes(b"port: \xff\xfe")
    with pytest.raises(ConfigurationError, match="expected a YAML file in UTF-8"):
        read_file(path)


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("prot: 1", "prot", "unknown key; did you mean port?"),
        ("port: http", "port", "'http': expected a valid integer"),
        ("port: 70000", "port", "70000: expected less than or equal to 65535"),
        ("queue_timeout: soon", "queue_timeout", "'soon': expected a duration such as 300ms"),
        ("connect_timeout: 0", "connect_timeout", "0: expected greater than 0"),
        ("max_body_size: huge", "max_body_size", "'huge': expected a size such as 64MiB"),
        ("picker: fastest", "picker", "'fastest': expected 'latency' or 'least_outstanding'"),
        ("margin_critical: 0", "margin_critical", "0: expected greater than 0"),
        ("margin_critical: 1.01", "margin_critical", "1.01: expected less than or equal to 1"),
        ("prefill_chunk_tokens: 0", "prefill_chunk_tokens", "0: expected greater than or equal to"),
        ("engine_backlog_steps: 0", "engine_backlog_steps", "0: expected greater than 0"),
        ("fairness_window: 10ms", "fairness_window", "'10ms': expected greater than or equal to 1"),
        ("fairness_neutral_requests: 0", "fairness_neutral_requests", "0: expected greater than"),
        ("fairness_late_share: 3", "fairness_late_share", "3: expected less than or equal to 1"),
        ("picker_miss_cost: .inf", "picker_miss_cost", "inf: expected a finite number"),
        (
            "pools: [{name: a, default_objective: {ttft: 0}}]",
            "pools[0].default_objective.ttft",
            "0: expected greater than 0",
        ),
        (
            "pools: [{name: a, default_objective: {tpot: null}}]",
            "pools[0].default_objective.tpot",
            "None: expected a duration",
        ),
        ("backends: [a:8000]", "backends[0]", "'a:8000': expected a URL with scheme and host"),
        ("pools: [{}]", "pools[0].name", "missing, and required"),
        ("pools: [{name: a, server: []}]", "pools[0].server", "did you mean servers?"),
        (
            "pools: [{name: a, services: [{name: s, priority: Crtical}]}]",
            "pools[0].services[0].priority",
            "'Crtical': expected Critical, Non-Critical or an integer",
        ),
        (
            "pools: [{name: a, services: [{name: s, targets: [{name: m, weight: -1}]}]}]",
            "pools[0].services[0].targets[0].weight",
            "-1: expected greater than or equal to 0",
        ),
        (
            "pools: [{name: a, services: [{name: s, objective: {ttfd: 1s}}]}]",
            "pools[0].services[0].objective.ttfd",
            "unknown key; did you mean ttft?",
        ),
        (
            "pools: [{name: a, services: [{name: s, fairness_weight: 0}]}]",
            "pools[0].services[0].fairness_weight",
            "0: expected greater than 0",
        ),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_expectation(
    write_config: WriteConfig, text: str, key: str, expected: str
) -> None:
    path = write_config(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings({}, path)
    (problem,) = refused.value.problems
    assert (problem.source, problem.key) == (str(path), key)
    assert expected in problem.text


def test_all_faults_are_reported_at_once(write_config: WriteConfig) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings({}, write_config("port: a\nseed: b\nnothing: c\n"))
    assert {problem.key for problem in refused.value.problems} == {"port", "seed", "nothing"}


def test_a_wrong_variable_is_named_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "many")
    with pytest.raises(ConfigurationError, match=r"^GATEWAY_PORT: 'many': expected a valid int"):
        load_settings({})


def test_a_wrong_flag_is_named_without_its_key() -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape('--queue-timeout')}: 'x': expected"):
        load_settings({"queue_timeout": "x"})


def test_a_fault_between_keys_names_the_file(write_config: WriteConfig) -> None:
    path = write_config("pools: [{name: a}, {name: a}]")
    with pytest.raises(ConfigurationError, match=re.escape(f"{path}: pools[1].name: 'a': already")):
        load_settings({}, path)
