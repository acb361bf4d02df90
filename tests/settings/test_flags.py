from argparse import ArgumentParser
from pathlib import Path

import pytest

from gateway.settings.flags import add_setting_flags, settings_of
from gateway.settings.pool_defaults import PolicyTuning
from gateway.settings.schema import Settings


@pytest.fixture
def parser() -> ArgumentParser:
    made = ArgumentParser()
    add_setting_flags(made)
    return made


def test_every_scalar_key_is_a_flag_of_the_same_name(parser: ArgumentParser) -> None:
    shown = parser.format_help()
    for key in Settings.model_fields.keys() - {"pools"}:
        assert f"--{key.replace('_', '-')}" in shown
        assert f"GATEWAY_{key.upper()}" in shown.replace("\n", "").replace(" ", "")


def test_help_shows_defaults_as_people_write_them(parser: ArgumentParser) -> None:
    shown = " ".join(parser.format_help().split())
    assert "default 64MiB]" in shown
    assert "default 100ms]" in shown
    assert "default false]" in shown
    assert "[GATEWAY_JOURNAL, default none]" in shown


def test_help_tells_what_is_for_measurement_apart_and_last(parser: ArgumentParser) -> None:
    daily, measured = parser.format_help().split("for measurement:")
    assert "--margin-critical" in daily
    assert "--port" in daily
    assert {f"--{key.replace('_', '-')}" for key in PolicyTuning.model_fields} <= set(
        measured.split()
    )


def test_flags_that_were_given_are_in_force(parser: ArgumentParser) -> None:
    settings = settings_of(
        parser.parse_args(["--port", "9", "--debug-headers", "--backends", "http://a:1,http://b:1"])
    )
    assert (settings.port, settings.debug_headers, len(settings.backends)) == (9, True, 2)
    assert set(settings.origins) == {"port", "debug_headers", "backends"}


def test_a_switch_can_be_turned_off_again(
    parser: ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DEBUG_HEADERS", "true")
    assert not settings_of(parser.parse_args(["--no-debug-headers"])).debug_headers


def test_config_names_the_file(parser: ArgumentParser, tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("port: 12", encoding="utf-8")
    assert settings_of(parser.parse_args(["--config", str(path)])).port == 12
