import asyncio
from pathlib import Path

import pytest

from gateway.discovery.file_source import FileSource
from gateway.settings.discovery import FileDiscovery
from tests.discovery.reports import Seen
from tests.server.raw_server import eventually

ONE = "servers: ['http://a:1', {url: 'http://b:2/', draining: true}]"


def source_of(path: Path) -> tuple[FileSource, Seen]:
    seen = Seen("file")
    wanted = FileDiscovery.model_validate({"path": path, "interval": "2ms"})
    return FileSource(wanted, seen.report), seen


def test_a_file_lists_servers_and_which_of_them_drain(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(ONE)
    source, seen = source_of(path)
    source.look()
    assert seen.servers == {"http://a:1": False, "http://b:2": True}


def test_a_server_that_is_written_in_two_ways_is_one() -> None:
    seen = Seen("kubernetes")
    seen.report.found({"http://a:80": True, "HTTP://A": False, "http://b:1": False})
    assert seen.servers == {"http://a": True, "http://b:1": False}


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text('{"servers": ["http://a:1"]}')
    source, seen = source_of(path)
    source.look()
    source.look()
    assert len(seen.told) == 1
    path.write_text('{"servers": ["http://a:1", "http://b:1"]}')
    source.look()
    assert len(seen.servers) == 2


def test_an_empty_list_takes_all_servers_out(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(ONE)
    source, seen = source_of(path)
    source.look()
    path.write_text("servers: []")
    source.look()
    assert (seen.servers, len(seen.told)) == ({}, 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("servers: [gpu-1:8000]", "servers[0].url: 'gpu-1:8000': expected a URL with scheme"),
        ("server: []", "server: unknown key; did you mean servers?"),
        ("servers: [{url: 'http://a:1', drains: 1}]", "servers[0].drains: unknown key"),
        ("servers: [", "not valid YAML"),
        ("servers: [2024-13-45]", "not valid YAML"),
        ("", "servers: missing, and required"),
    ],
)
def test_a_faulty_file_changes_nothing_and_the_log_says_what_is_wrong(
    tmp_path: Path, text: str, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(ONE)
    source, seen = source_of(path)
    source.look()
    path.write_text(text)
    source.look()
    source.look()
    assert (len(seen.told), seen.report.errors) == (1, 2)
    assert caplog.text.count(complaint) == 1
    assert str(path) in caplog.text
    path.write_text("servers: ['http://c:1']")
    source.look()
    assert seen.servers == {"http://c:1": False}


def test_a_file_that_is_gone_keeps_its_servers_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text(ONE)
    source, seen = source_of(path)
    source.look()
    text = path.read_text()
    path.unlink()
    source.look()
    assert (len(seen.told), seen.report.errors) == (1, 1)
    path.write_text(text)
    source.look()
    assert len(seen.told) == 2


def test_the_files_of_a_directory_add_up_and_one_that_is_removed_takes_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.yaml").write_text(ONE)
    (tmp_path / "two.json").write_text('{"servers": ["http://a:1", "http://c:3"]}')
    (tmp_path / "notes.txt").write_text("nothing")
    source, seen = source_of(tmp_path)
    source.look()
    assert seen.servers == {"http://a:1": False, "http://b:2": True, "http://c:3": False}
    (tmp_path / "one.yaml").unlink()
    source.look()
    assert seen.servers == {"http://a:1": False, "http://c:3": False}


async def test_a_change_is_seen_while_running(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    source, seen = source_of(path)
    task = asyncio.create_task(source.run())
    await eventually(lambda: seen.report.errors)
    path.write_text(ONE)
    await eventually(lambda: seen.servers)
    assert seen.report.age_s is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
