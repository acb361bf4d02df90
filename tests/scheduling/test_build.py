"""The same facts and seed give the same decisions, whatever the process."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from gateway.scheduling import events as ev
from gateway.scheduling.build import build_scheduler
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.model import (
    CRITICAL,
    BackendId,
    BackendLoad,
    LatencyObjective,
    RequestId,
    TokenUsage,
)
from gateway.scheduling.policy import FairnessDimension, PickerKind
from tests.builders import make_policy, make_request, make_service, serving

ROOT = Path(__file__).resolve().parents[2]


def history_of(seed: int) -> list[Decision]:
    """Decisions of a busy history: three servers, splits, adapters, failures, reports."""
    policy = make_policy(
        make_service("chat", priority=CRITICAL, targets=[("base", 3.0), ("lora-a", 1.0)]),
        make_service("batch", targets=[("lora-b", 1.0), ("lora-c", 1.0)]),
        slots=8,
        max_loras=2,
    )
    scheduler, world = build_scheduler(policy, Random(seed)), Random(99)
    decisions: list[Decision] = []
    now = 0.0

    def happens(event: ev.SchedulerEvent) -> None:
        decisions.extend(scheduler.handle(event, now=now))

    names = [BackendId(name) for name in ("a", "b", "c")]
    for name in names:
        happens(ev.BackendJoined(name, serving("lora-a", "lora-b", "lora-c")))
    for number in range(400):
        now += world.random() / 50
        service = world.choice(("chat", "batch", "chat", "default"))
        happens(ev.RequestArrived(make_request(f"r{number}", service=service)))
        recent = [d.request_id for d in decisions[-20:] if isinstance(d, Dispatch)]
        for some in world.sample(recent, k=min(3, len(recent))):
            happens(
                world.choice(
                    (
                        ev.RequestCancelled(some),
                        ev.FirstTokenReceived(some),
                        ev.ResponseFinished(some, TokenUsage(completion_tokens=number)),
                        ev.ResponseFinished(some, TokenUsage()),
                        ev.DispatchFailed(some, ev.FailureKind.CONNECT, retryable=True),
                        ev.BackendLoadReported(
                            world.choice(names), BackendLoad(active_adapters=("lora-c",)), now
                        ),
                        ev.DeadlinePassed(),
                    )
                )
            )
    return decisions


def test_the_same_facts_and_seed_give_the_same_decisions() -> None:
    assert history_of(seed=1) == history_of(seed=1)


def test_another_seed_draws_otherwise() -> None:
    assert history_of(seed=1) != history_of(seed=2)


def test_decisions_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = "from tests.scheduling.test_build import history_of; print(history_of(seed=1))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert printed[0].strip() == str(history_of(seed=1))


def test_the_history_that_is_compared_is_a_rich_one() -> None:
    kinds = Counter(type(decision).__name__ for decision in history_of(seed=1))
    retries = [d for d in history_of(seed=1) if isinstance(d, Dispatch) and d.attempt > 1]
    assert kinds["Dispatch"] > 200
    assert len(retries) > 10


@pytest.mark.parametrize("dimension", FairnessDimension)
@pytest.mark.parametrize("picker", PickerKind)
def test_every_policy_that_can_be_named_is_built_and_serves(
    dimension: FairnessDimension, picker: PickerKind
) -> None:
    scheduler = build_scheduler(make_policy(fairness=dimension, picker=picker), Random(1))
    scheduler.handle(ev.BackendJoined(BackendId("a"), serving()), now=0.0)
    (decision,) = scheduler.handle(ev.RequestArrived(make_request()), now=0.0)
    assert isinstance(decision, Dispatch)


def test_each_fairness_dimension_orders_the_same_queue_in_its_own_way() -> None:
    """Three services wait for one place."""
    assert len({served_by(dimension) for dimension in FairnessDimension}) == 5


def served_by(dimension: FairnessDimension) -> tuple[str, ...]:
    """Services in the order in which a single place serves them."""
    services = [
        make_service(
            name,
            priority=CRITICAL,
            objective=LatencyObjective(ttft_s=ttft_s, percentile=percentile),
        )
        for name, ttft_s, percentile in (("a", 9.0, 0.99), ("b", 5.0, 0.5), ("c", 7.0, 0.9))
    ]
    policy = make_policy(*services, slots=1, fairness=dimension)
    scheduler = build_scheduler(policy, Random(1))
    served: list[str] = []

    def happens(event: ev.SchedulerEvent) -> None:
        for decision in scheduler.handle(event, now=len(served) / 100):
            assert isinstance(decision, Dispatch)
            served.append(str(decision.request_id))

    happens(ev.BackendJoined(BackendId("a"), serving()))
    for number, (name, tokens) in enumerate(
        [("a", 50), ("a", 50), ("b", 900), ("a", 50), ("c", 10), ("b", 900), ("c", 10), ("a", 50)]
    ):
        request = make_request(f"{name}{number}", service=name, prompt_tokens=tokens, max_tokens=1)
        happens(ev.RequestArrived(request))
    for number in range(8):
        happens(ev.ResponseFinished(RequestId(served[number]), TokenUsage(completion_tokens=1)))
    return tuple(request_id[0] for request_id in served)
