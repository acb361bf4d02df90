"""What servers are believed to cost at first sight: as the picker would say, roughly."""

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.first_sight import FirstSight
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import CRITICAL, BackendId, LatencyObjective
from gateway.scheduling.policy import CapacityPolicy, PickerPolicy
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_ledger, make_service, make_tracked, serving

CHAT = make_service("chat", objective=LatencyObjective(ttft_s=1.0, tpot_s=0.05), priority=CRITICAL)


class Pair:
    """Two servers, and what each would cost a request."""

    def __init__(self) -> None:
        self.ledger = make_ledger(max_loras=1)
        self.predictor = LatencyPredictor(prior=StepTimePrior())
        self.first_sight = FirstSight(
            predictor=self.predictor,
            capacity=Capacity(policy=CapacityPolicy(), predictor=self.predictor),
            policy=PickerPolicy(),
        )
        self.one = self.ledger.join(BackendId("one"), serving("lora-a"))
        self.other = self.ledger.join(BackendId("other"), serving("lora-a"))

    def run(self, backend: BackendState, count: int, *, tpot_s: float = 0.05) -> None:
        """Let so many requests decode there."""
        for _ in range(count):
            running = request(f"{backend.id}-{len(backend.in_flight)}", tpot_s=tpot_s)
            self.ledger.reserve(backend, running, now=0.0)
            self.ledger.end_prefill(backend, running)

    def costs(self, tracked: TrackedRequest, *, now: float = 0.0) -> dict[str, float]:
        backends = (self.one, self.other)
        found = self.first_sight.costs(tracked, backends, now=now)
        return {backends[number].id: cost for cost, number in found}


def request(
    request_id: str = "asked", *, tpot_s: float = 0.05, blocks: tuple[int, ...] = ()
) -> TrackedRequest:
    tracked = make_tracked(request_id, service=CHAT, prompt_tokens=400, prefix_blocks=blocks)
    tracked.ttft_bound_s, tracked.tpot_bound_s = 1.0, tpot_s
    tracked.block_tokens = 100.0
    return tracked


def test_like_servers_cost_the_same() -> None:
    pair = Pair()
    for backend in (pair.one, pair.other):
        pair.run(backend, 5)
    costs = pair.costs(request())
    assert costs["one"] == costs["other"]


def test_a_server_that_holds_the_start_of_the_prompt_costs_less() -> None:
    pair = Pair()
    pair.one.prefixes.add(None, (1, 2, 3))
    costs = pair.costs(request(blocks=(1, 2, 9)))
    assert costs["one"] < costs["other"]
    costs = pair.costs(request(blocks=(7, 2, 9)))
    assert costs["one"] == costs["other"]


def test_misses_of_those_who_run_there_cost_more_than_headroom() -> None:
    pair = Pair()
    pair.run(pair.one, 20, tpot_s=0.016)
    pair.run(pair.other, 24)
    costs = pair.costs(request())
    assert costs["one"] > costs["other"] + 0.5


def test_a_first_token_that_would_come_about_too_late_costs_a_miss() -> None:
    pair = Pair()
    in_time = pair.costs(request())["one"]
    late = pair.costs(request(), now=0.97)["one"]
    assert late > in_time + 0.5 * PickerPolicy().miss_cost


def test_a_server_where_requests_fail_costs_misses() -> None:
    pair = Pair()
    pair.one.failure_rate = 0.5
    costs = pair.costs(request())
    assert costs["one"] > costs["other"] + 0.4 * PickerPolicy().miss_cost


def test_what_was_seen_is_seen_anew_after_a_change() -> None:
    pair = Pair()
    before = pair.costs(request())["one"]
    pair.run(pair.one, 9)
    assert pair.costs(request())["one"] > before
