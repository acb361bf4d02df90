"""What is wrong with a configuration, named by source, key, value and what was expected."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings.access import MASK
from gateway.settings.schema import Settings, flag, variable

_SHOWN_VALUE_LENGTH = 80
_SECRETS = frozenset({"upstream_api_key", "admin_api_key", "sha256"})
_USER_INFO = re.compile(r"//[^/@\s]*@")
"""Where URLs have a password."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: `source` is a file, variable or flag, `key` a path such as pools[0].name."""

    source: str
    key: str
    text: str

    def __str__(self) -> str:
        """One line for people."""
        key = "" if self.source in {flag(self.key), variable(self.key)} else self.key
        return ": ".join(part for part in (self.source, key, self.text) if part)


class ConfigurationError(ValueError):
    """The configuration cannot be used; every fault found is listed, one per line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


def fault(source: str, key: str, text: str) -> ConfigurationError:
    """An error of one problem."""
    return ConfigurationError([Problem(source, key, text)])


def key_path(location: Sequence[int | str]) -> str:
    """`pools[0].servers[1]` of ("pools", 0, "servers", 1)."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def hint(name: str, known: Sequence[str]) -> str:
    """The nearest of the known names, as a question, or nothing."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def problems_of(
    error: ValidationError, sources: Mapping[str, str], *, section: type[BaseModel] = Settings
) -> list[Problem]:
    """Translate pydantic's errors of a `section`; `sources` tells where its keys came from."""
    found = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":
            continue  # follows from another fault of the same section
        source = sources.get(str(detail["loc"][0]), "") if detail["loc"] else ""
        found.append(Problem(source, key_path(detail["loc"]), _text(detail, section)))
    return found


def _text(detail: ErrorDetails, section: type[BaseModel]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            known = sorted(_keys_beside(detail["loc"], section))
            return "unknown key" + hint(str(detail["loc"][-1]), known)
        case "missing":
            return "missing, and required"
        case "tuple_type":
            return f"{_shown(detail)}: expected a list"
        case "model_type":
            return f"{_shown(detail)}: expected keys with values"
        case _:
            expected = detail["msg"].removeprefix("Value error, ")
            expected = expected.replace("Input should be", "expected", 1)
            return f"{_shown(detail)}: {expected}"


def _shown(detail: ErrorDetails) -> str:
    if not _SECRETS.isdisjoint(map(str, detail["loc"])) or detail["loc"][-1:] == ("api_keys",):
        return MASK
    text = _USER_INFO.sub(f"//{MASK}@", repr(_masked(detail["input"])))
    if len(text) <= _SHOWN_VALUE_LENGTH:
        return text
    return text[:_SHOWN_VALUE_LENGTH] + "..."


def _masked(value: object) -> object:
    """The same value, with the secrets inside it masked."""
    if isinstance(value, Mapping):
        return {key: MASK if key in _SECRETS else _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _keys_beside(location: Sequence[int | str], section: type[BaseModel]) -> set[str]:
    """Keys that the section around `location`, which starts at `section`, knows."""
    model = section
    for step in location[:-1]:
        if isinstance(step, str):
            model = _section(model.model_fields[step].annotation) or model
    return set(model.model_fields)


def _section(annotation: object) -> type[BaseModel] | None:
    """The model inside an annotation such as `tuple[Model, ...]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _section(part)
        if found is not None:
            return found
    return None
