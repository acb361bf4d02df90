from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.settings.access import ApiKeySettings
from gateway.settings.discovery import (
    DiscoverySettings,
    DnsDiscovery,
    FileDiscovery,
    KubernetesDiscovery,
)
from gateway.settings.reference import configuration_document
from gateway.settings.schema import (
    DefaultObjectiveSettings,
    ObjectiveSettings,
    PoolSettings,
    ServiceSettings,
    Settings,
    TargetSettings,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
GROUPS = (
    Settings,
    PoolSettings,
    ServiceSettings,
    ApiKeySettings,
    TargetSettings,
    ObjectiveSettings,
    DefaultObjectiveSettings,
    DiscoverySettings,
    DnsDiscovery,
    FileDiscovery,
    KubernetesDiscovery,
)


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_is_explained(group: type[BaseModel]) -> None:
    unexplained = [key for key, field in group.model_fields.items() if not field.description]
    assert unexplained == [], "write what the key means below it, or as Field(description=...)"


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_is_in_the_reference(group: type[BaseModel]) -> None:
    document = configuration_document()
    assert [key for key in group.model_fields if f"\n| `{key}` |" not in document] == []


def test_the_reference_in_docs_is_the_generated_one() -> None:
    hint = "run: python -m gateway.settings.reference > docs/configuration.md"
    assert DOCUMENT.read_text() == configuration_document(), hint


def test_defaults_are_shown_as_they_are_written() -> None:
    document = configuration_document()
    assert "| `queue_timeout` | `30s` |" in document
    assert "| `max_body_size` | `64MiB` |" in document
    assert "| `percentile` | `0.95` |" in document
    assert "| `name` | required |" in document
    assert "| `upstream_api_key` |  |" in document
    assert "| `inject_usage` | `false` |" in document
