"""Results by content: the key is made of everything that a run depends on, the code included."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import orjson

from gateway.policy_benchmark.run_result import RunResult

_PACKAGES = ("scheduling", "simulator", "policy_benchmark")


def code_fingerprint() -> str:
    """Hash of the source of all packages that decide what a run gives."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class ResultCache:
    """Files named by key in one directory; `directory` None keeps nothing."""

    def __init__(self, directory: Path | None, code: str) -> None:
        """`code` is `code_fingerprint()`, part of every key."""
        self._directory = directory
        self._code = code

    def key(self, parts: Iterable[str]) -> str:
        """The name of the result that follows from these inputs, in this order."""
        return hashlib.sha256("\0".join((self._code, *parts)).encode()).hexdigest()

    def find(self, key: str) -> RunResult | None:
        """The result of an earlier run, or None; a broken file counts as none."""
        if self._directory is None:
            return None
        try:
            return cast("RunResult", orjson.loads((self._directory / f"{key}.json").read_bytes()))
        except (OSError, orjson.JSONDecodeError):
            return None

    def store(self, key: str, result: RunResult) -> None:
        """Keep a result; it appears whole or not at all."""
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f"{key}.part"
        partial.write_bytes(orjson.dumps(result))
        partial.replace(self._directory / f"{key}.json")
