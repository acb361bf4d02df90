from argparse import ArgumentParser
from pathlib import Path

import pytest

from gateway.telemetry.replay_command import add_arguments, run
from tests.telemetry.journal_scenario import write_scenario


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    with path.open("wb") as out:
        write_scenario(out, requests=40)
    return path


def replayed(journal: Path) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(journal)]))


def test_a_journal_that_is_reproduced_ends_with_0(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replayed(journal) == 0
    text = journal.read_bytes()
    events = text.count(b"\n") - 1
    decisions = sum(map(text.count, (b'["Dispatch"', b'["Reject"', b'["Evict"')))
    told = capsys.readouterr().out
    assert told.startswith(f"{events} events, {decisions} decisions: ")
    assert told.endswith("every decision was reproduced\n")


def test_a_tampered_journal_ends_with_1_and_shows_the_first_lines(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write_bytes(journal.read_bytes().replace(b'"attempt":1', b'"attempt":2'))
    assert replayed(journal) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith(f"{journal}:")]
    assert len(shown) == 5
    assert shown[0].startswith(f'{journal}:5: recorded [["Dispatch"')
    assert "but replayed" in lines[1]
    assert lines[-1].endswith(" events were decided differently")


def test_an_unreadable_journal_ends_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replayed(tmp_path) == 2
    told = capsys.readouterr()
    assert told.err == f"llm-gateway: {tmp_path}: cannot be read: Is a directory\n"
    assert told.out == ""


def test_of_a_journal_cut_short_the_part_before_is_replayed(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:11]) + lines[11][:20])
    assert replayed(journal) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"llm-gateway: {journal}, line 12: ")
    assert told[1].startswith("llm-gateway: before it, 10 events, ")
    assert told[1].endswith("every decision was reproduced")
