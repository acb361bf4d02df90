import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.policies import find_policy, policy_kinds
from gateway.policy_benchmark.run_result import RunKey, RunResult
from gateway.policy_benchmark.simulation import RunOptions, check_load, simulate
from tests.policy_benchmark.workload_texts import SMALL, plan

EXACT_KEYS = {
    "workload", "profile", "servers", "policy", "load", "seed", "offered_rps", "attainment",
    "attainment_critical", "attainment_non_critical", "goodput_rps", "token_goodput", "shed_rate",
    "fraction_of_bound", "inversions", "services", "ttft_s", "tpot_s", "ntpot_s", "predictor",
    "lora", "requests",
}  # fmt: skip


def run(
    tmp_path: Path, policy: str, load: float = 0.5, text: str = SMALL, gateways: int = 1
) -> RunResult:
    key = RunKey(policy, load, 1)
    return simulate(plan(tmp_path, text), find_policy(policy), key, RunOptions(gateways))


@pytest.mark.parametrize(
    "policy", [name for name in policy_kinds() if name != "clairvoyant_greedy"]
)
def test_at_half_load_every_policy_serves_nearly_everything(tmp_path: Path, policy: str) -> None:
    result = run(tmp_path, policy)
    assert result["offered"] == pytest.approx(300, abs=60)
    assert result["attainment"] > 0.9
    assert set(result) >= EXACT_KEYS


def test_above_the_bound_a_policy_without_admission_collapses(tmp_path: Path) -> None:
    text = SMALL.replace("requests: 300", "requests: 3000").replace("warmup: 5s", "warmup: 30s")
    assert run(tmp_path, "least_outstanding", 1.3, text)["attainment"] < 0.1


def test_a_clairvoyant_serves_about_the_bound_above_it(tmp_path: Path) -> None:
    text = SMALL.replace("count: 2", "count: 1").replace("requests: 300", "requests: 250")
    reference = run(tmp_path, "clairvoyant_greedy", 1.3, text)
    blind = run(tmp_path, "least_outstanding", 1.3, text)
    assert reference["goodput_rps"] > blind["goodput_rps"]
    assert reference["fraction_of_bound"] > 0.85
    assert reference["wasted_work"] == 0.0


def test_a_clairvoyant_run_that_is_too_long_is_refused(tmp_path: Path) -> None:
    text = SMALL.replace("requests: 300", "requests: 3000")
    with pytest.raises(BenchmarkError, match="takes at most 2000 requests"):
        run(tmp_path, "clairvoyant_greedy", 0.5, text)


def test_gateways_that_share_a_pool_serve_all_of_it(tmp_path: Path) -> None:
    result = run(tmp_path, "gateway", gateways=3)
    assert result["attainment"] > 0.95


@pytest.mark.parametrize("load", [0.0, -1.0, 21.0, float("nan")])
def test_an_impossible_load_is_refused(load: float) -> None:
    with pytest.raises(BenchmarkError, match="impossible load"):
        check_load(load)


JOURNAL = """
import sys
from pathlib import Path
from random import Random
from itertools import islice
from gateway.policy_benchmark.service_setup import server_pool
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.workload_file import load_workload
from gateway.policy_benchmark.workload_plan import build_plan
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.policy import SchedulingPolicy
from gateway.simulator.fleet_model import FleetListeners, FleetOptions
from gateway.simulator.virtual_fleet import VirtualFleet
from gateway.telemetry.journal import JournalWriter

plan = build_plan(load_workload("multi-lora"), TraceLibrary(Path("nowhere")))
policy = SchedulingPolicy(pool=server_pool(plan.workload, plan.services))
writer = JournalWriter(sys.stdout.buffer, policy=policy, seed=7)
fleet = VirtualFleet(
    engines=plan.pool.engines(7),
    policies=[build_scheduler(policy, Random(7))],
    options=FleetOptions(adapters=plan.adapters),
    rng=Random(7),
    listeners=FleetListeners(
        on_event=lambda _, now, event, decisions: writer.observed(event, decisions, now=now)
    ),
)
fleet.run(islice(plan.requests(0.5, 7), 400))
"""


def journal(hash_seed: str) -> bytes:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", JOURNAL],
        env=environment,
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout


def test_two_processes_with_different_hash_seeds_write_the_same_journal() -> None:
    first = journal("1")
    assert first.count(b"\n") > 1000
    assert first == journal("2")
