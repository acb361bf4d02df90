from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gateway.settings.loading import load_file, load_settings
from gateway.settings.rendering import effective_configuration

WriteConfig = Callable[[str], Path]


def test_a_value_that_is_not_a_default_names_its_source(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config("log_level: debug")
    monkeypatch.setenv("GATEWAY_SEED", "7")
    block = effective_configuration(load_settings({"port": "9000"}, path)).split("\n")
    assert "port: 9000  # --port" in block
    assert "seed: 7  # GATEWAY_SEED" in block
    assert f"log_level: debug  # {path}" in block
    assert "admin_port: 8081" in block


def test_secrets_are_masked() -> None:
    block = effective_configuration(load_settings({"upstream_api_key": "sk-private"}))
    assert "sk-private" not in block
    assert "upstream_api_key: '**********'  # --upstream-api-key" in block


def test_a_pool_shows_its_servers_services_and_policies_in_force(write_config: WriteConfig) -> None:
    block = effective_configuration(
        load_settings(
            {"backends": "http://a:1", "queue_timeout": "5min"},
            write_config("pools: [{name: p, services: [{name: s, objective: {ttft: 300ms}}]}]"),
        )
    )
    (pool,) = yaml.safe_load(block)["pools"]
    assert pool["servers"] == ["http://a:1"]
    assert pool["services"][0]["objective"]["ttft"] == "300ms"
    assert pool["services"][0]["priority"] == "Critical"
    assert pool["queue_timeout"] == "5min"
    assert pool["default_objective"] == {"ttft": "10s", "tpot": "200ms"}
    assert pool["picker"] == "latency"
    assert "  servers:  # --backends" in block


def test_a_pools_own_value_names_the_file_and_an_inherited_one_its_source(
    write_config: WriteConfig,
) -> None:
    path = write_config("pools: [{name: p, max_engine_waiting: 2}]")
    block = effective_configuration(load_settings({"queue_timeout": "1min"}, path)).split("\n")
    assert f"  max_engine_waiting: 2  # {path}" in block
    assert "  queue_timeout: 1min  # --queue-timeout" in block
    assert "  retry_max_attempts: 3" in block


def test_the_block_given_back_as_a_file_means_the_same(write_config: WriteConfig) -> None:
    documented = load_file(Path(__file__).parents[2] / "config" / "gateway.yaml")
    again = load_file(write_config(effective_configuration(documented)))
    assert again.effective_pools() == documented.effective_pools()
    assert again.model_dump(exclude={"pools"}) == documented.model_dump(exclude={"pools"})
