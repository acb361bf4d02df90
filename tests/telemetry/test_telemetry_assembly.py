"""The request log as it is wired: where its lines go, and when."""

from contextlib import ExitStack
from pathlib import Path

import pytest

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
