"""Workload files: built-in ones by name, users' own by path; errors name file, line and key."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from gateway.policy_benchmark.benchmark_error import BenchmarkError, at_line
from gateway.policy_benchmark.workload_model import Workload

_PACKAGED = Path(__file__).parent / "workloads"
_CHECKOUT = Path(__file__).parents[2] / "config" / "workloads"


def built_in_directory() -> Path:
    """Where the built-in workload files are: in an installed wheel, or in a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def built_in_names() -> list[str]:
    """Names of the built-in workloads, sorted."""
    return sorted(path.stem for path in built_in_directory().glob("*.yaml"))


def load_workload(name_or_path: str) -> Workload:
    """A built-in workload by its name, or a user's own by the path of its file.

    Raises:
        BenchmarkError: no such workload, or a file that is not a valid one.
    """
    if name_or_path in built_in_names():
        return read_workload(built_in_directory() / f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        known = ", ".join(built_in_names())
        raise BenchmarkError(
            f"unknown workload {name_or_path!r}; built in: {known}; or the path of a .yaml file"
        )
    return read_workload(path)


def read_workload(path: Path) -> Workload:
    """Read and validate one workload file.

    Raises:
        BenchmarkError: unreadable, not YAML, or not a workload; all faults are listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: cannot read the workload: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise at_line(path, line, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BenchmarkError(f"{path}: not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise at_line(path, 1, "expected a mapping of keys")
    try:
        return Workload.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{path}:{_line_of(root, fault['loc'])}: {_key_of(fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise BenchmarkError("\n".join(lines)) from error


def _line_of(root: yaml.Node, location: Sequence[int | str]) -> int:
    """Line of the innermost node that a validation error names, counted from 1."""
    node, line = root, root.start_mark.line
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if found:
                key, node = found[0]
                line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1


def _key_of(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location)) or "workload"
