from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

WriteConfig = Callable[[str], Path]


@pytest.fixture(autouse=True)
def only_own_variables(clean_environment: None) -> None:
    """Settings read the environment, so each of their tests sets its own."""


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a configuration file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "gateway.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write
