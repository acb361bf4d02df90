"""Test profiles, and the tests that need more than Python.

`HYPOTHESIS_PROFILE` chooses fast (default), ci or deep. `NO_TEST_SKIPS=1` turns every skip into a
failure, so that nothing is skipped unseen in CI.
"""

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.browser.chromium import chromium_path

SHARED = Path(__file__).resolve().parents[2] / "shared"

_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)

settings.register_profile("fast", max_examples=25, stateful_step_count=30, deadline=None)
settings.register_profile(
    "ci",
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", max_examples=5_000, stateful_step_count=100, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def _what_is_missing() -> dict[str, str]:
    """Marker -> why its tests cannot run here."""
    missing = {}
    if not SHARED.is_dir():
        missing["shared"] = "no folder ../shared beside the checkout"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        missing["compiler"] = "no C compiler (cc, gcc or clang)"
    if chromium_path() is None:
        missing["browser"] = "no chromium"
    return missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _what_is_missing()
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _fail_where_skips_count(report: _Report) -> _Report:
    if report.skipped and os.environ.get("NO_TEST_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, and NO_TEST_SKIPS=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_where_skips_count((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_where_skips_count((yield))


@pytest.fixture
def shared() -> Path:
    """The folder of recordings, traces and calibration data; use it with the marker `shared`."""
    return SHARED


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the GATEWAY_* variables that the developer has set."""
    for name in [name for name in os.environ if name.upper().startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
