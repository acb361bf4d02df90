from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

WriteConfig = Callable[[str], Path]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a configuration file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "gateway.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write
