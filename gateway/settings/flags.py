"""A command-line flag for each top-level key, under the key's name."""

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any

from gateway.settings.loading import CONFIG_VARIABLE, load_settings
from gateway.settings.pool_defaults import PolicyTuning, PoolDefaults
from gateway.settings.schema import Settings, flag, variable

_FILE_ONLY = frozenset({"pools", "api_keys"})


def add_setting_flags(parser: ArgumentParser) -> None:
    """Add `--config` and every key. Values stay text: `load_settings` validates all sources."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"YAML file, see config/gateway.yaml [{CONFIG_VARIABLE}]",
    )
    defaults = Settings().model_dump(mode="json")
    process = parser.add_argument_group("the process")
    pools = parser.add_argument_group("defaults of pools", "each may be set again inside a pool")
    tuning = parser.add_argument_group(
        "for measurement", "the defaults were chosen by the policy benchmark"
    )
    for key, field in Settings.model_fields.items():
        if key in _FILE_ONLY:
            continue
        help_text = f"{field.description} [{variable(key)}, default {_shown(defaults[key])}]"
        kind: dict[str, Any] = (
            {"action": BooleanOptionalAction} if field.annotation is bool else {"metavar": "VALUE"}
        )
        group = process
        if key in PoolDefaults.model_fields:
            group = tuning if key in PolicyTuning.model_fields else pools
        group.add_argument(
            flag(key), dest=key, default=SUPPRESS, help=help_text.replace("%", "%%"), **kind
        )


def settings_of(arguments: Namespace) -> Settings:
    """The configuration in force, with the flags that were given.

    Raises:
        ConfigurationError: lists everything found wrong.
    """
    given = {key: value for key, value in vars(arguments).items() if key in Settings.model_fields}
    return load_settings(given, arguments.config)


def _shown(default: object) -> str:
    if default is None or default == []:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)
