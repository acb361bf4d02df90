"""Request log and journal as they are wired: where their lines go, and when."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.pool_assembly import build_pools
from gateway.server.routes import PoolDirectory
from gateway.settings.schema import Settings
from gateway.telemetry_assembly import Telemetry, build_telemetry
from tests.telemetry.record_builder import make_record


@pytest.fixture(autouse=True)
def only_own_variables(clean_environment: None) -> None:
    """Settings read the environment, so each of these tests sets its own."""


def telemetry(log: Path, files: ExitStack) -> Telemetry:
    settings = Settings(backends="http://127.0.0.1:1", request_log=log)
    return build_telemetry(settings, PoolDirectory([]), files)


def test_the_line_of_a_request_that_ends_last_of_all_is_written(tmp_path: Path) -> None:
    log = tmp_path / "requests.log"
    with ExitStack() as files:
        telemetry(log, files).observer.request_ended(make_record(lease_id="last"))
        assert log.read_bytes() == b""
    assert log.read_bytes().count(b"\n") == 1


def lost(watching: Telemetry) -> float | None:
    return watching.registry.get_sample_value(
        "llm_gateway_lost_lines_total", {"output": "request_log"}
    )


def test_a_full_disk_under_the_log_fails_nothing_even_at_the_end() -> None:
    with ExitStack() as files:
        watching = telemetry(Path("/dev/full"), files)
        watching.observer.request_ended(make_record())
        assert lost(watching) == 1
        watching.observer.request_ended(make_record())


def test_a_full_disk_under_the_journal_is_told_in_the_log_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings(backends="http://127.0.0.1:1", journal=Path("/dev/full"))
    with ExitStack() as files:
        build_pools(settings, 1, files)
    assert "the end of the journal /dev/full is lost" in caplog.text


def test_nothing_is_left_in_standard_output_that_could_fail_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as out, ExitStack() as files:
        monkeypatch.setattr(sys, "stdout", out)
        watching = telemetry(Path("-"), files)
        watching.observer.request_ended(make_record())
        assert lost(watching) == 0
        assert os.read(reads, 65_536).count(b"\n") == 1
        os.close(reads)
        watching.observer.request_ended(make_record())
        assert lost(watching) == 1
