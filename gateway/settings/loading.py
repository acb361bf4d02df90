"""Merges flags, environment and file, and refuses what is not known or not right."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from gateway.settings.access import ApiKeySettings
from gateway.settings.checks import faults
from gateway.settings.problems import ConfigurationError, Problem, fault, hint, problems_of
from gateway.settings.schema import PREFIX, Settings, flag, variable

CONFIG_VARIABLE = "GATEWAY_CONFIG"
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "GATEWAY_TRACES"})  # the latter: `benchmark`'s


def load_settings(flags: Mapping[str, object], config: Path | None = None) -> Settings:
    """The configuration in force.

    Args:
        flags: top-level keys given on the command line.
        config: the YAML file; None means the one `GATEWAY_CONFIG` names, if any.

    Raises:
        ConfigurationError: lists everything found wrong.
    """
    if config is None and os.environ.get(CONFIG_VARIABLE):  # noqa: TID251 - their home
        config = Path(os.environ[CONFIG_VARIABLE])  # noqa: TID251 - their home
    file_values = read_file(config) if config else {}
    variables = _read_environment()
    sources = (
        dict.fromkeys(file_values, str(config))
        | {key: variable(key) for key in variables}
        | {key: flag(key) for key in flags}
    )
    return _validated(file_values | variables | dict(flags), sources, file=config)


def load_file(config: Path) -> Settings:
    """What one file says, alone: no flags, no environment.

    Raises:
        ConfigurationError: lists everything found wrong.
    """
    values = read_file(config)
    return _validated(values, dict.fromkeys(values, str(config)), file=config)


def read_file(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file.

    Raises:
        ConfigurationError: unreadable, not YAML, not a mapping, or a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise fault(str(path), "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise fault(str(path), "", "expected a YAML file in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise fault(f"{path}:{line}", "", f"not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The last two: a date that there is not, a number of thousands of digits, endless brackets.
        raise fault(str(path), "", f"not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise fault(str(path), "", "expected keys and values, such as `port: 8080`")
    return {str(key): value for key, value in values.items()}


class _KeyFile(BaseModel):
    """What `api_keys_file` names: the key `api_keys`, as in the configuration."""

    model_config = ConfigDict(extra="forbid")
    api_keys: tuple[ApiKeySettings, ...] = ()


def _read_keys(path: Path) -> tuple[ApiKeySettings, ...]:
    values = read_file(path)
    try:
        return _KeyFile(**values).api_keys
    except ValidationError as error:
        sources = dict.fromkeys(values, str(path))
        raise ConfigurationError(problems_of(error, sources, section=_KeyFile)) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one, and a list hold itself; a
    configuration must not.
    """  # noqa: D205 - one sentence

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, ARG002, FBT001, FBT002 - the signature is PyYAML's
        # From the inside out, PyYAML refuses what holds itself.
        return super().construct_object(node, deep=True)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the signature is PyYAML's
        seen = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} stands here twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Environment(BaseSettings, Settings):
    """The same keys, as pydantic-settings reads them from variables."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)


def _read_environment() -> dict[str, Any]:
    known = {variable(key) for key in Settings.model_fields} | _OTHER_VARIABLES
    problems = [
        Problem(name, "", "unknown variable" + hint(name, sorted(known)))
        for name in sorted(os.environ)  # noqa: TID251 - their home
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]
    if problems:
        raise ConfigurationError(problems)
    try:
        return EnvSettingsSource(_Environment)()
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        source = variable(named[1]) if named else PREFIX
        raise fault(source, "", f"expected JSON: {error.__cause__}") from error


def _validated(
    values: dict[str, Any], sources: Mapping[str, str], *, file: Path | None
) -> Settings:
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, sources)) from error
    if settings.api_keys_file is not None:
        keys = settings.api_keys + _read_keys(settings.api_keys_file)
        settings = settings.model_copy(update={"api_keys": keys})
        sources = {"api_keys": str(settings.api_keys_file), **sources}
    settings = settings.with_origins(sources, file=file)
    problems = faults(settings)
    if problems:
        raise ConfigurationError(problems)
    return settings
