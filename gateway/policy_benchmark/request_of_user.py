"""What the command line asked for, as workloads, policies, loads and seeds."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.policies import find_policy
from gateway.policy_benchmark.pool_setup import find_profile
from gateway.policy_benchmark.simulation import check_load
from gateway.policy_benchmark.workload_file import built_in_names, load_workload
from gateway.policy_benchmark.workload_model import EngineTerms, Measurement, Workload

QUICK_POLICIES = ("gateway", "round_robin", "least_outstanding", "filter_tree")
QUICK_REQUESTS = 600
QUICK_WARMUP_S = 10.0
IRREGULAR = EngineTerms(batch_square=1e-7, stall_every=10.0, stall=0.2, speculative_tokens=3)
"""`--engine irregular`: what the linear step formula lacks."""


class TraceSettings(BaseSettings):
    """Where traces are: `GATEWAY_TRACES`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")
    traces: Path = Path("../shared/traces")


@dataclass(frozen=True, slots=True)
class UserRequest:
    """What to run: every policy at every load with every seed, on every workload."""

    workloads: tuple[Workload, ...]
    policies: tuple[str, ...]
    loads: tuple[float, ...]
    seeds: tuple[int, ...]

    def loads_of(self, workload: Workload) -> Sequence[float]:
        """The loads asked for, or the workload's own."""
        return self.loads or workload.loads


def user_request(arguments: Namespace) -> UserRequest:
    """Check everything that can be checked before the first run.

    Raises:
        BenchmarkError: with all that the user needs to mend it.
    """
    names = _words(arguments.workload) or (built_in_names() if arguments.quick else [])
    if not names:
        raise BenchmarkError(
            f"which workload? --workload NAME, one of {', '.join(built_in_names())}, or a .yaml"
        )
    policies = _words(arguments.policies) or list(QUICK_POLICIES)
    for policy in policies:
        find_policy(policy)
    loads = tuple(_load(word) for word in _words(arguments.load))
    seeds = arguments.seeds or (1 if arguments.quick else 3)
    if seeds < 1:
        raise BenchmarkError("--seeds needs at least 1")
    first = arguments.first_seed
    if first < 0:
        raise BenchmarkError("--first-seed: expected at least 0")
    workloads = tuple(_adapted(load_workload(name), arguments) for name in names)
    for workload in workloads:
        find_profile(workload.servers.profile)
    return UserRequest(workloads, tuple(policies), loads, tuple(range(first, first + seeds)))


def _adapted(workload: Workload, arguments: Namespace) -> Workload:
    """The workload with the pool, engine and measurement that the user wants instead."""
    pool: dict[str, object] = {}
    if arguments.profile is not None:
        pool["profile"] = find_profile(arguments.profile).name
    if arguments.servers is not None:
        if not 1 <= arguments.servers <= 10_000:
            raise BenchmarkError("--servers: expected 1 to 10000")
        if sum(fault.kill for fault in workload.faults) >= arguments.servers:
            raise BenchmarkError(f"--servers: {workload.name} kills as many as that")
        pool["count"] = arguments.servers
    if arguments.engine == "irregular":
        pool["unmodelled"] = IRREGULAR
    servers = workload.servers.model_copy(update=pool)
    measure = _measurement(workload, arguments)
    loads = workload.loads
    if arguments.quick:
        # What has its events at fixed instants cannot be shortened: one load only.
        loads = loads[-2:] if measure.requests is not None else loads[-1:]
    return workload.model_copy(update={"servers": servers, "measure": measure, "loads": loads})


def _measurement(workload: Workload, arguments: Namespace) -> Measurement:
    """Shorter where asked for; what happens at fixed instants is never cut off."""
    if arguments.requests is not None and arguments.requests < 1:
        raise BenchmarkError("--requests: expected at least 1")
    if arguments.warmup is not None and not 0.0 <= arguments.warmup <= 1e6:
        raise BenchmarkError("--warmup: expected seconds, at least 0")
    measure = workload.measure
    if measure.requests is None:
        return measure
    requests, warmup = measure.requests, measure.warmup
    if arguments.quick:
        requests, warmup = min(QUICK_REQUESTS, requests), min(QUICK_WARMUP_S, warmup)
    return Measurement(
        warmup=warmup if arguments.warmup is None else arguments.warmup,
        requests=arguments.requests or requests,
    )


def _load(word: str) -> float:
    try:
        load = float(word)
    except ValueError as error:
        raise BenchmarkError(f"--load: {word!r} is not a number") from error
    check_load(load)
    return load


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]
