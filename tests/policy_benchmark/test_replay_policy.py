import re
from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.policies import policy_kinds
from gateway.policy_benchmark.replay_command import add_arguments, run
from gateway.policy_benchmark.replay_policy import replay_policy
from gateway.policy_benchmark.service_setup import server_pool
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.policy import CapacityPolicy, SchedulingPolicy
from gateway.simulator.fleet_model import FleetListeners, FleetOptions
from gateway.simulator.virtual_fleet import VirtualFleet
from gateway.telemetry.journal import JournalWriter
from tests.policy_benchmark.workload_texts import plan


def replay(*arguments: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of our scheduler under scarcity: four requests per server, the rest queues."""
    directory = tmp_path_factory.mktemp("journal")
    made = plan(directory)
    policy = SchedulingPolicy(
        pool=server_pool(made.workload, made.services),
        capacity=CapacityPolicy(max_requests_per_backend=4),
    )
    path = directory / "journal.jsonl"
    with path.open("wb") as out:
        writer = JournalWriter(out, policy=policy, seed=3)

        def observe(
            _: int, now: float, event: SchedulerEvent, decisions: Sequence[Decision]
        ) -> None:
            writer.observed(event, decisions, now=now)

        fleet = VirtualFleet(
            engines=made.pool.engines(1),
            policies=[build_scheduler(policy, Random(3))],
            options=FleetOptions(),
            rng=Random(1),
            listeners=FleetListeners(on_event=observe),
        )
        fleet.run(islice(made.requests(0.5, 1), 150))
    return path


def test_the_same_policy_decides_the_same(journal: Path) -> None:
    assert list(replay_policy(journal, "gateway")) == []


def test_another_policy_differs_where_it_would_have_sent_requests_elsewhere(journal: Path) -> None:
    differences = list(replay_policy(journal, "round_robin"))
    assert differences
    dispatched_at_once = [d for d in differences if d.recorded == "-"]
    assert all(d.other.startswith("dispatch s") for d in dispatched_at_once)
    assert str(differences[0]).startswith(f"{differences[0].line}: request ")


@pytest.mark.parametrize("policy", [n for n in policy_kinds() if n != "clairvoyant_greedy"])
def test_every_policy_can_be_asked(journal: Path, policy: str) -> None:
    lines = [d.line for d in replay_policy(journal, policy)]
    assert lines == sorted(lines)


def test_a_policy_that_needs_engines_is_refused(journal: Path) -> None:
    with pytest.raises(BenchmarkError, match="needs simulated engines"):
        next(replay_policy(journal, "clairvoyant_greedy"))


def test_the_command_without_a_policy_checks_the_journal(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(str(journal)) == 0
    assert "every decision was reproduced" in capsys.readouterr().out


def test_the_command_tells_line_request_and_both_choices(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(str(journal), "--policy", "round_robin") == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r".*journal.jsonl:\d+: request \S+: \S+.*; other: \S+", lines[0])
    assert lines[-1].endswith("decisions of round_robin differ from the recorded ones")


def test_the_command_refuses_wrong_journals_and_policies(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(str(journal), "--policy", "magic") == 2
    assert replay(str(tmp_path / "none"), "--policy", "gateway") == 2
    printed = capsys.readouterr().err
    assert "unknown policy 'magic'" in printed
    assert "none" in printed
