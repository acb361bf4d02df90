"""The first look at many servers, alone and in a scheduler."""

from random import Random

import pytest

from gateway.scheduling.capacity import Capacity
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import CRITICAL, BackendId, LatencyObjective
from gateway.scheduling.policy import CapacityPolicy, PickerPolicy
from gateway.scheduling.shortlist import Shortlist
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import (
    BASE,
    make_ledger,
    make_policy,
    make_request,
    make_service,
    make_tracked,
    serving,
)
from tests.scheduling.checked_scheduler import CheckedScheduler

CHAT = make_service("chat", objective=LatencyObjective(ttft_s=1.0, tpot_s=0.05), priority=CRITICAL)


class Pool:
    """Servers s0, s1, ... with two adapters and one slot each."""

    def __init__(self, servers: int, *, seed: int = 1) -> None:
        self.ledger = make_ledger(max_loras=1)
        predictor = LatencyPredictor(prior=StepTimePrior())
        self.shortlist = Shortlist(
            predictor=predictor,
            capacity=Capacity(policy=CapacityPolicy(), predictor=predictor),
            ledger=self.ledger,
            policy=PickerPolicy(),
            rng=Random(seed),
        )
        self.servers = [
            self.ledger.join(BackendId(f"s{n}"), serving("lora-a", "lora-b"))
            for n in range(servers)
        ]

    def run(self, server: int, count: int, *, target: str = BASE) -> None:
        """Let so many requests decode on a server."""
        backend = self.servers[server]
        for _ in range(count):
            running = request(f"{backend.id}-{len(backend.in_flight)}", target=target)
            self.ledger.reserve(backend, running, now=0.0)
            self.ledger.end_prefill(backend, running)

    def batches(self, tracked: TrackedRequest) -> list[list[str]]:
        found = self.shortlist.batches(tracked, self.servers, now=0.0)
        return [[backend.id for backend in batch] for batch in found]


def request(
    request_id: str = "asked", *, target: str = BASE, tpot_s: float | None = 0.05
) -> TrackedRequest:
    tracked = make_tracked(request_id, service=CHAT, target=target)
    tracked.ttft_bound_s, tracked.tpot_bound_s = 1.0, tpot_s
    return tracked


def test_the_emptier_server_comes_first() -> None:
    pool = Pool(4)
    for server, count in enumerate((9, 2, 6, 0)):
        pool.run(server, count)
    assert pool.batches(request()) == [["s3", "s1", "s2", "s0"]]


def test_a_server_that_holds_the_adapter_comes_first_and_one_without_a_slot_not_at_all() -> None:
    pool = Pool(3)
    pool.run(0, 5, target="lora-b")
    pool.run(1, 5, target="lora-a")
    assert pool.batches(request(target="lora-a")) == [["s1", "s2"]]
    assert len(pool.batches(request())[0]) == 3


def test_a_server_that_is_surely_too_slow_is_left_out_unless_it_is_idle() -> None:
    pool = Pool(3)
    pool.run(1, 5)
    too_fast = request(tpot_s=0.001)
    assert pool.batches(too_fast) == [["s0", "s2"]]


def test_the_soonest_server_is_the_one_with_the_least_to_prefill() -> None:
    pool = Pool(3)
    for server in (0, 2):
        pool.ledger.reserve(pool.servers[server], request(f"r{server}"), now=0.0)
    assert pool.shortlist.soonest(request(), pool.servers, now=0.0).id == "s1"


@pytest.mark.parametrize("seed", range(5))
def test_of_very_many_a_sample_with_a_holder_comes_before_all(seed: int) -> None:
    pool = Pool(300, seed=seed)
    pool.run(seed * 60, 1, target="lora-a")
    sample, everyone = pool.batches(request(target="lora-a"))
    assert sample[0] == f"s{seed * 60}"
    assert 64 <= len(sample) == len(set(sample)) <= 65
    assert sorted(everyone) == sorted(backend.id for backend in pool.servers)


def test_a_holder_that_was_tried_already_is_no_part_of_a_sample() -> None:
    pool = Pool(300)
    pool.run(7, 1, target="lora-a")
    again = request(target="lora-a")
    again.tried = ((pool.servers[7].id, pool.servers[7].lives),)
    untried = [backend for backend in pool.servers if not backend.failed(again)]
    sample = next(pool.shortlist.batches(again, untried, now=0.0))
    assert "s7" not in [backend.id for backend in sample]


def test_samples_reach_every_server() -> None:
    pool = Pool(150)
    seen = {name for _ in range(100) for name in pool.batches(request())[0]}
    assert len(seen) == 150


@pytest.mark.parametrize("servers", [13, 101])
def test_large_pools_keep_the_contract(servers: int) -> None:
    """Arrivals, first tokens and ends at random; every step is checked."""
    rng = Random(servers)
    services = [
        make_service(name, targets=((name, 1.0),), objective=objective, priority=CRITICAL)
        for name, objective in (
            (BASE, LatencyObjective(ttft_s=1.0, tpot_s=0.016)),
            ("lora-a", LatencyObjective(ttft_s=0.5)),
            ("lora-b", None),
        )
    ]
    checked = CheckedScheduler(make_policy(*services, slots=1))
    for number in range(servers):
        checked.join(f"s{number}", "lora-a", "lora-b")
    waited = 0
    for number in range(servers + 50):
        checked.now += 0.001
        name = rng.choice(services).name
        decisions = checked.arrive(make_request(f"r{number}", service=name))
        waited += not any(isinstance(decision, Dispatch) for decision in decisions)
        running = checked.ids_in("in flight")
        if number % 3 == 0:
            checked.first_token(rng.choice(running))
        if number % 5 == 0:
            checked.finish(rng.choice(running))
    assert waited
    while running := checked.ids_in("in flight"):
        checked.now += 0.01
        checked.finish(running[0])
