import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.settings.checks import warnings
from gateway.settings.loading import load_file, load_settings, read_file
from gateway.settings.pool_defaults import PolicyTuning, PoolDefaults
from gateway.settings.schema import (
    DefaultObjectiveSettings,
    PoolSettings,
    ServiceSettings,
    Settings,
)

CONFIG = Path(__file__).parents[2] / "config"


def test_the_documented_file_and_the_examples_are_valid_and_give_no_warning() -> None:
    for path in (CONFIG / "gateway.yaml", *(CONFIG / "examples").glob("*.yaml")):
        assert warnings(load_file(path)) == [], path


def test_the_documented_file_has_every_key() -> None:
    document = read_file(CONFIG / "gateway.yaml")
    assert set(document) == set(Settings.model_fields)


def test_the_documented_pool_has_every_key_that_only_a_pool_has() -> None:
    (pool,) = read_file(CONFIG / "gateway.yaml")["pools"]
    assert set(pool) == set(PoolSettings.model_fields) - set(PoolDefaults.model_fields)


def test_the_documented_services_have_every_key_of_a_service() -> None:
    (pool,) = read_file(CONFIG / "gateway.yaml")["pools"]
    assert _missing(ServiceSettings, pool["services"]) == set()


def _missing(model: type[BaseModel], sections: list[dict[str, Any]]) -> set[str]:
    """Keys that no section shows, at any depth."""
    missing = set(model.model_fields) - {key for section in sections for key in section}
    for key, field in model.model_fields.items():
        parts = (field.annotation, *getattr(field.annotation, "__args__", ()))
        inner = next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)
        if inner:
            shown = [section[key] for section in sections if key in section]
            flat: list[dict[str, Any]] = [
                item for part in shown for item in (part if isinstance(part, list) else [part])
            ]
            missing |= {f"{key}.{name}" for name in _missing(inner, flat)}
    return missing


def test_the_documented_values_are_the_defaults() -> None:
    documented = load_file(CONFIG / "gateway.yaml")
    assert documented.model_dump(exclude={"pools"}) == Settings().model_dump(exclude={"pools"})
    assert documented.pools[0].default_objective == DefaultObjectiveSettings()


def test_what_is_for_measurement_is_documented_apart() -> None:
    text = (CONFIG / "gateway.yaml").read_text(encoding="utf-8")
    section = text.partition("# For measurement;")[2].partition("# ---")[0]
    assert set(re.findall(r"^(\w+):", section, re.MULTILINE)) == set(PolicyTuning.model_fields)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_backends_alone_make_one_pool() -> None:
    (pool,) = load_settings({"backends": "http://a:1,http://b:1"}).effective_pools()
    assert (pool.name, pool.servers) == ("default", ("http://a:1", "http://b:1"))


def test_backends_go_to_the_pool_that_names_no_servers() -> None:
    settings = load_settings(
        {"backends": "http://a:1", "pools": [{"name": "p", "services": [{"name": "s"}]}]}
    )
    (pool,) = settings.effective_pools()
    assert (pool.name, pool.servers) == ("p", ("http://a:1",))
    assert pool.services[0].name == "s"
