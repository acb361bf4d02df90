"""Many runs at once: over the cores, with a cache, telling of each that is done."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from gateway.policy_benchmark.find_rate import highest_load
from gateway.policy_benchmark.policies import find_policy
from gateway.policy_benchmark.result_cache import ResultCache
from gateway.policy_benchmark.run_result import RunKey, RunResult
from gateway.policy_benchmark.simulation import RunOptions, simulate
from gateway.policy_benchmark.workload_plan import WorkloadPlan
from gateway.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Where runs are made: a cache, options, and a clock for the time they take."""

    cache: ResultCache
    options: RunOptions
    clock: Clock

    def run(self, plan: WorkloadPlan, key: RunKey) -> RunResult:
        """One run, from the cache where an equal one is there; `wall_s` is the first one's."""
        name = self.cache.key(
            [
                plan.workload.model_dump_json(),
                repr(key),
                repr(self.options),
                *(plan.library.fingerprint(trace) for trace in sorted(plan.traces)),
            ]
        )
        found = self.cache.find(name)
        if found is not None:
            return found
        started = self.clock()
        result = simulate(plan, find_policy(key.policy), key, self.options)
        result["wall_s"] = self.clock() - started
        self.cache.store(name, result)
        return result


@dataclass(frozen=True, slots=True)
class RateSearch:
    """A search for the highest load of one policy at a target attainment, pooled over seeds."""

    policy: str
    target: float
    seeds: tuple[int, ...]


Task = RunKey | RateSearch
Finished = tuple[list[RunResult], dict[str, Any] | None]
"""Runs that were made, and for a search what it found."""


def run_task(laboratory: Laboratory, plan: WorkloadPlan, task: Task) -> Finished:
    """Carry out one task (in a worker process)."""
    if isinstance(task, RunKey):
        return [laboratory.run(plan, task)], None
    runs: list[RunResult] = []

    def attainment_at(load: float) -> float:
        made = [laboratory.run(plan, RunKey(task.policy, load, seed)) for seed in task.seeds]
        runs.extend(made)
        offered = sum(run["offered"] for run in made)
        return sum(run["met"] for run in made) / offered if offered else 0.0

    load = highest_load(attainment_at, task.target)
    found = {
        "workload": plan.workload.name,
        "profile": plan.pool.profile.name,
        "servers": plan.workload.servers.count,
        "policy": task.policy,
        "attainment": task.target,
        "rate_rps": None if load is None else load * plan.bound_rps,
        "fraction_of_bound": load,
    }
    return runs, found


def run_tasks(
    laboratory: Laboratory,
    tasks: Sequence[tuple[WorkloadPlan, Task]],
    *,
    workers: int,
    done: Callable[[], None],
) -> list[Finished]:
    """All tasks, in their order; `done` is called as each ends."""
    if workers <= 1 or len(tasks) <= 1:
        return list(_one_by_one(laboratory, tasks, done))
    with ProcessPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(run_task, laboratory, plan, task) for plan, task in tasks]
        for future in as_completed(futures):
            future.result()
            done()
        return [future.result() for future in futures]


def _one_by_one(
    laboratory: Laboratory, tasks: Sequence[tuple[WorkloadPlan, Task]], done: Callable[[], None]
) -> Iterator[Finished]:
    for plan, task in tasks:
        finished = run_task(laboratory, plan, task)
        done()
        yield finished
