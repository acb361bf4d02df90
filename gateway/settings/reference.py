"""Makes docs/configuration.md: `python -m gateway.settings.reference > docs/configuration.md`."""

import sys
from collections.abc import Iterable

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.settings.access import ApiKeySettings
from gateway.settings.discovery import (
    DiscoverySettings,
    DnsDiscovery,
    FileDiscovery,
    KubernetesDiscovery,
)
from gateway.settings.pool_defaults import PolicyTuning, PoolBasics, PoolDefaults
from gateway.settings.schema import (
    DefaultObjectiveSettings,
    ObjectiveSettings,
    PoolSettings,
    ServiceSettings,
    Settings,
    TargetSettings,
)

_HEAD = """# Configuration

Flag over `GATEWAY_*` variable over YAML file over default. A top-level key `queue_timeout` is the
flag `--queue-timeout` and the variable `GATEWAY_QUEUE_TIMEOUT`; `--config FILE` or `GATEWAY_CONFIG`
names the file. Unknown keys are refused; `llm-gateway check-config FILE` says what is wrong with a
file. What is in force is logged at start, with the source of every value.

Durations: `300ms`, `1.5s`, `5min`, `1h`, or a number of seconds. Sizes: `64MiB`, `10kB`, or bytes.
Lists are comma-separated in flags and variables.

This page is generated: `python -m gateway.settings.reference > docs/configuration.md`.
"""

_GROUPS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("An API key: `api_keys[]`", "`llm-gateway make-key NAME` makes one.", ApiKeySettings),
    ("A pool: `pools[]`", "Beside these, every default of pools.", PoolSettings),
    ("Discovery: `pools[].discovery`", "Each source adds its servers.", DiscoverySettings),
    ("DNS: `pools[].discovery.dns`", "", DnsDiscovery),
    ("A file: `pools[].discovery.file`", "", FileDiscovery),
    (
        "Kubernetes: `pools[].discovery.kubernetes`",
        "One of `service`, `pods`, `inference_pool`.",
        KubernetesDiscovery,
    ),
    ("A service: `pools[].services[]`", "", ServiceSettings),
    ("An objective: `pools[].services[].objective`", "At least one bound.", ObjectiveSettings),
    ("A target: `pools[].services[].targets[]`", "", TargetSettings),
    ("The default objective: `pools[].default_objective`", "", DefaultObjectiveSettings),
)


def configuration_document() -> str:
    """The text of docs/configuration.md."""
    top = Settings.model_fields
    own = [key for key in top if key not in PoolDefaults.model_fields]
    parts = [
        _HEAD,
        *_section("The process", "", Settings, own),
        *_section(
            "Defaults of pools",
            "Each may be set again inside a pool.",
            Settings,
            PoolBasics.model_fields,
        ),
    ]
    for title, text, group in _GROUPS:
        keys = [key for key in group.model_fields if key not in PoolDefaults.model_fields]
        parts += _section(title, text, group, keys)
    parts += _section(
        "For measurement",
        "Prices and thresholds of the policies, chosen by the policy benchmark; set at the top or"
        " inside a pool.",
        Settings,
        PolicyTuning.model_fields,
    )
    return "".join(parts)


def _section(title: str, text: str, model: type[BaseModel], keys: Iterable[str]) -> list[str]:
    parts = [f"\n## {title}\n\n"]
    if text:
        parts.append(f"{text}\n\n")
    parts.append("| key | default | meaning |\n|---|---|---|\n")
    # The form in which a value is written, which is not the one that the program uses.
    known = {key: "-" for key, field in model.model_fields.items() if field.is_required()}
    defaults = model.model_construct(None, **known).model_dump(mode="json", warnings=False)
    for key in keys:
        field = model.model_fields[key]
        meaning = " ".join(str(field.description).split()).replace("|", "\\|")
        parts.append(f"| `{key}` | {_default(field, defaults[key])} | {meaning} |\n")
    return parts


def _default(field: FieldInfo, value: object) -> str:
    if field.is_required():
        return "required"
    if field.default is None or field.default_factory is not None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "see below"
    return f"`{value}`" if value not in ([], "") else ""


if __name__ == "__main__":
    sys.stdout.write(configuration_document())
