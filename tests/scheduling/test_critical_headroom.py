"""What is kept free for Critical requests with a tight TTFT."""

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.critical_headroom import CriticalHeadroom
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import CRITICAL, BackendId, LatencyObjective, LLMService
from gateway.scheduling.policy import CapacityPolicy
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import BASE, make_ledger, make_service, make_tracked, serving

TIGHT = make_service("tight", objective=LatencyObjective(ttft_s=0.15), priority=CRITICAL)
BATCH = make_service("batch")


class Pool:
    """Idle servers s0, s1, ... of the prior's speed: about 10 ms a step, 40 us a prefill token."""

    def __init__(self, servers: int) -> None:
        self.ledger = make_ledger()
        self.predictor = LatencyPredictor(prior=StepTimePrior())
        self.headroom = CriticalHeadroom(ledger=self.ledger, predictor=self.predictor)
        self.servers = [
            self.ledger.join(BackendId(f"s{n}"), serving("lora-a")) for n in range(servers)
        ]

    def arrivals(
        self, per_second: float, *, of: LLMService = TIGHT, target: str = BASE, tokens: int = 400
    ) -> None:
        """Let requests of a service arrive during the minute before 0."""
        for number in range(int(60 * per_second)):
            at = (number + 1) / per_second - 60.0
            tracked = make_tracked(service=of, arrived_at=at, target=target, prompt_tokens=tokens)
            objective = of.objective
            tracked.ttft_bound_s = 10.0 if objective is None else objective.ttft_s or 10.0
            self.headroom.arrived(tracked)

    def burst(self, arrivals: int, *, before: float = 0.0) -> None:
        """Let so many tight requests arrive in half a second that ends so many seconds before 0."""
        for number in range(arrivals):
            at = -0.5 - before + 0.05 * number
            tracked = make_tracked(service=TIGHT, arrived_at=at, prompt_tokens=400)
            tracked.ttft_bound_s = 0.15
            self.headroom.arrived(tracked)

    def run(self, backend: BackendState, *, tokens: int = 3000, decoding: bool = False) -> None:
        """Let a request run on a server: its prefill is pending, or it decodes."""
        running = make_tracked(f"{backend.id}-{len(backend.in_flight)}", prompt_tokens=tokens)
        self.ledger.reserve(backend, running, now=0.0)
        if decoding:
            self.ledger.end_prefill(backend, running)

    def spares(
        self, number: int = 0, *, tokens: int = 3000, now: float = 0.0, batch: LLMService = BATCH
    ) -> bool:
        """Whether batch work of so many tokens may have a server."""
        backend = self.servers[number]
        tracked: TrackedRequest = make_tracked(
            "batch", service=batch, prompt_tokens=tokens, arrived_at=0.0, wait_s=30.0
        )
        prediction = self.predictor.predict(backend, tracked, now=now)
        return self.headroom.spares(tracked, backend, prediction, margin=0.9, now=now)


def test_where_no_critical_request_comes_nothing_is_kept() -> None:
    assert Pool(1).spares()


def test_a_prefill_that_would_delay_critical_requests_is_kept_off_the_only_server() -> None:
    pool = Pool(1)
    pool.arrivals(10.0)
    assert not pool.spares()


def test_a_prefill_that_delays_nobody_much_may_go() -> None:
    pool = Pool(1)
    pool.arrivals(10.0)
    assert pool.spares(tokens=200)


def test_it_may_go_while_another_server_is_ready() -> None:
    pool = Pool(2)
    pool.arrivals(10.0)
    assert pool.spares()
    pool.run(pool.servers[1])
    assert not pool.spares()


def test_the_more_critical_requests_come_the_more_servers_stay_ready() -> None:
    for per_second, goes in ((10.0, True), (40.0, False)):
        pool = Pool(4)
        pool.arrivals(per_second)
        pool.run(pool.servers[1])
        pool.run(pool.servers[2])
        assert pool.spares() is goes


def test_what_will_never_fit_goes_when_all_others_are_ready_however_many_come() -> None:
    pool = Pool(2)
    pool.arrivals(40.0)
    assert pool.spares()
    pool.run(pool.servers[1])
    assert not pool.spares()


def test_what_will_never_fit_goes_where_no_prefill_is_pending() -> None:
    pool = Pool(3)
    pool.arrivals(10.0)
    assert pool.spares()
    pool.run(pool.servers[0], tokens=1)
    assert not pool.spares()


def test_the_size_of_batches_counts_as_prefills_do() -> None:
    pool = Pool(1)
    pool.arrivals(10.0)
    assert pool.spares(tokens=200)
    for _ in range(300):
        pool.run(pool.servers[0], tokens=2000, decoding=True)
    assert not pool.spares(tokens=200)


def test_a_prefill_waits_for_those_pending_if_it_would_fit_then() -> None:
    pool = Pool(2)
    pool.arrivals(10.0)
    pool.run(pool.servers[0], tokens=1500)
    pool.run(pool.servers[1], tokens=3000)
    assert not pool.spares(0, tokens=1000)
    assert pool.spares(0, tokens=1)


def test_rare_critical_requests_close_no_server() -> None:
    pool = Pool(1)
    pool.arrivals(0.1)
    assert pool.spares()


def test_ten_arrivals_show_a_burst() -> None:
    pool = Pool(1)
    pool.burst(9)
    assert pool.spares(tokens=2_500)
    pool.burst(10)
    assert not pool.spares(tokens=2_500)


def test_arrivals_of_long_ago_do_not_thin_out_a_burst() -> None:
    pool = Pool(1)
    pool.burst(1, before=90.0)
    pool.burst(9)
    assert not pool.spares(tokens=4_000)


def test_a_burst_is_over_when_as_many_have_not_come_for_a_while() -> None:
    pool = Pool(1)
    pool.run(pool.servers[0], tokens=10, decoding=True)
    pool.arrivals(10.0)
    assert not pool.spares(tokens=2_500)
    assert pool.spares(tokens=2_500, now=5.0)


def test_who_has_waited_for_half_of_its_time_goes_anyway() -> None:
    pool = Pool(1)
    pool.arrivals(40.0)
    pool.run(pool.servers[0])
    assert not pool.spares(now=14.0)
    assert pool.spares(now=15.1)


def test_an_idle_server_is_kept_from_nobody_for_more_than_a_second() -> None:
    pool = Pool(1)
    pool.arrivals(40.0)
    assert not pool.spares(now=0.9)
    assert pool.spares(now=1.1)


def test_a_service_that_was_idle_for_a_minute_needs_nothing() -> None:
    pool = Pool(1)
    pool.arrivals(40.0)
    assert not pool.spares(now=0.0)
    pool.run(pool.servers[0])
    backend = pool.servers[0]
    tracked = make_tracked("late", service=BATCH, prompt_tokens=3000, arrived_at=61.0)
    prediction = pool.predictor.predict(backend, tracked, now=61.0)
    assert pool.headroom.spares(tracked, backend, prediction, margin=0.9, now=61.0)


def test_critical_requests_that_the_server_cannot_take_do_not_matter() -> None:
    pool = Pool(1)
    pool.arrivals(10.0, target="lora-elsewhere")
    assert pool.spares()


def test_only_critical_requests_with_a_first_token_to_keep_matter() -> None:
    pool = Pool(1)
    pool.arrivals(10.0, of=BATCH)
    pool.arrivals(10.0, of=make_service("pace", objective=LatencyObjective(tpot_s=0.05)))
    pool.arrivals(10.0, of=make_service("low", objective=LatencyObjective(ttft_s=0.15)))
    assert pool.spares()


def test_objectives_that_no_server_can_meet_do_not_matter() -> None:
    pool = Pool(1)
    impossible = make_tracked(service=TIGHT)
    impossible.impossible = True
    for _ in range(100):
        pool.headroom.arrived(impossible)
    assert pool.spares()


def test_a_server_that_is_kept_ready_is_closed_to_what_would_fill_it() -> None:
    pool = Pool(1)
    capacity = Capacity(policy=CapacityPolicy(), predictor=pool.predictor, headroom=pool.headroom)
    for number in range(600):
        critical = make_tracked(service=TIGHT, arrived_at=number / 10 - 60.0, prompt_tokens=400)
        critical.ttft_bound_s = 0.15
        capacity.expect(critical)
    batch = make_tracked("batch", service=BATCH, prompt_tokens=3000, wait_s=30.0)
    assert not capacity.open_among(batch, pool.servers, now=0.0)
    small = make_tracked("small", service=BATCH, prompt_tokens=200, wait_s=30.0)
    assert capacity.open_among(small, pool.servers, now=0.0)


def test_without_it_arrivals_are_nothing_to_get_ready_for() -> None:
    pool = Pool(1)
    capacity = Capacity(policy=CapacityPolicy(), predictor=pool.predictor)
    capacity.expect(make_tracked(service=TIGHT))
    batch = make_tracked("batch", service=BATCH, prompt_tokens=3000)
    assert capacity.open_among(batch, pool.servers, now=0.0)
