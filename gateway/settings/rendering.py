"""The configuration in force as one block of YAML that could be given back as a file."""

from collections.abc import Mapping
from typing import Any

import yaml

from gateway.settings.pool_defaults import PoolDefaults
from gateway.settings.schema import PoolSettings, Settings

_WIDTH = 100


def effective_configuration(settings: Settings) -> str:
    """Every value in force, secrets masked, with where it came from if it is not a default.

    `backends` and the defaults of pools are shown where they take effect: inside the pools.
    """
    shown = settings.model_dump(mode="json", exclude={*PoolDefaults.model_fields, "backends"})
    del shown["pools"]
    lines = _lines(shown, settings.origins)
    lines.append("pools:")
    for written, pool in zip(settings.pools or (None,), settings.effective_pools(), strict=True):
        origins = dict(settings.origins)
        if not written or not written.servers:
            origins["servers"] = origins.get("backends", "")
        if written:
            origins |= dict.fromkeys(written.model_fields_set, origins.get("pools", ""))
        lines += _pool_lines(pool, origins)
    return "\n".join(lines)


def _pool_lines(pool: PoolSettings, origins: Mapping[str, str]) -> list[str]:
    values = pool.model_dump(mode="json", exclude_none=True)
    first = {key: values.pop(key) for key in ("name", "servers", "services")}
    lines = _lines(first | values, origins)
    return [("- " if number == 0 else "  ") + line for number, line in enumerate(lines)]


def _lines(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    lines = []
    for key, value in values.items():
        text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=_WIDTH)
        head, *rest = text.rstrip("\n").split("\n")
        origin = origins.get(key)
        lines += [f"{head}  # {origin}" if origin else head, *rest]
    return lines
