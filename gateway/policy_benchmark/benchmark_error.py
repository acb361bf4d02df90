"""The one exception of this package: something the user gave cannot be benchmarked."""

from pathlib import Path


class BenchmarkError(ValueError):
    """A wrong workload, trace, policy or load; the message is meant for the user as it is."""


def at_line(path: Path, line: int, message: str) -> BenchmarkError:
    """An error in a file the user wrote; `line` counts from 1."""
    return BenchmarkError(f"{path}:{line}: {message}")
