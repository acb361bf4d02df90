"""Which service goes next by arrival, deadline, requests and tokens."""

from collections import Counter

import pytest

from gateway.scheduling.events import FailureKind
from gateway.scheduling.fairness import (
    EarliestDeadlineFirst,
    FirstComeFirstServed,
    LeastServedFirst,
    ServiceOrder,
)
from gateway.scheduling.model import (
    CRITICAL,
    LatencyObjective,
    LLMService,
    RequestPhase,
    TokenUsage,
)
from gateway.scheduling.policy import FairnessDimension
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_policy, make_request, make_service, make_tracked
from tests.scheduling.checked_scheduler import CheckedScheduler

OBJECTIVE = LatencyObjective(ttft_s=1.0, percentile=0.95)


def service(name: str, *, weight: float = 1.0) -> LLMService:
    return make_service(name, priority=CRITICAL, objective=OBJECTIVE, fairness_weight=weight)


A, B, C = service("A"), service("B"), service("C")


def head(
    of: LLMService, *, arrived_at: float = 0.0, sequence: int = 1, ttft_s: float = 1.0
) -> TrackedRequest:
    tracked = make_tracked(of.name, service=of, arrived_at=arrived_at, sequence=sequence)
    tracked.ttft_bound_s = ttft_s
    return tracked


def names(order: ServiceOrder, *heads: TrackedRequest, now: float = 0.0) -> str:
    return "".join(found.service.name for found in order.ordered(heads, now=now))


# -- arrival, deadline ------------------------------------------------------------------------


def test_first_come_first_served_goes_by_arrival_whatever_the_service() -> None:
    heads = (head(A, arrived_at=2.0), head(B, arrived_at=1.0), head(C, arrived_at=1.5))
    assert names(FirstComeFirstServed(), *heads) == "BCA"


def test_arrivals_of_one_instant_go_by_their_number() -> None:
    assert names(FirstComeFirstServed(), head(A, sequence=2), head(B, sequence=1)) == "BA"


def test_the_earliest_deadline_goes_first_whoever_came_first() -> None:
    patient = head(A, arrived_at=0.0, ttft_s=5.0)
    urgent = head(B, arrived_at=3.0, ttft_s=1.0)
    assert names(EarliestDeadlineFirst(), patient, urgent) == "BA"


def test_who_has_no_deadline_goes_after_who_has_one() -> None:
    endless = head(A, sequence=1, ttft_s=float("inf"))
    assert names(EarliestDeadlineFirst(), endless, head(B, sequence=2, ttft_s=9.0)) == "BA"


def test_equal_deadlines_go_by_the_number_of_arrival() -> None:
    assert names(EarliestDeadlineFirst(), head(A, sequence=2), head(B, sequence=1)) == "BA"


# -- what was served, by a whole scheduler ----------------------------------------------------


class Competition:
    """One server with one place, always wanted by some of the services."""

    def __init__(self, dimension: FairnessDimension, *services: LLMService) -> None:
        policy = make_policy(*services, slots=1, fairness=dimension)
        self.checked = CheckedScheduler(policy)
        self.checked.join("a")
        self._number = 0

    def ask(
        self,
        of: LLMService,
        *,
        times: int = 1,
        prompt_tokens: int = 100,
        output_tokens: int = 50,
        streamed: bool = True,
    ) -> None:
        for _ in range(times):
            self._number += 1
            request = make_request(
                f"{of.name}{self._number}",
                service=of.name,
                prompt_tokens=prompt_tokens,
                max_tokens=output_tokens,
                streamed=streamed,
            )
            self.checked.arrive(request)

    def serve(self, times: int) -> str:
        """Let the running request end, so often; names of the services that ran, in order."""
        served = ""
        for _ in range(times):
            self.checked.now += 0.001
            (running,) = self.checked.ids_in("in flight")
            life = self.checked.lives[running]
            served += life.service.name
            if life.request.streamed:
                self.checked.first_token(running)
            self.checked.finish(running, TokenUsage(None, life.request.max_tokens, None, 1))
        return served


PLAIN = tuple(make_service(name, priority=CRITICAL) for name in "ABC")


def test_by_requests_the_services_take_turns() -> None:
    competition = Competition(FairnessDimension.REQUESTS, *PLAIN)
    for one in PLAIN:
        competition.ask(one, times=10)
    served = competition.serve(30)
    assert all(set(served[turn : turn + 3]) == set("ABC") for turn in range(1, 28, 3))


@pytest.mark.parametrize("streamed", [True, False])
def test_by_requests_the_size_of_a_request_does_not_matter(*, streamed: bool) -> None:
    big, small, _ = PLAIN
    competition = Competition(FairnessDimension.REQUESTS, big, small)
    competition.ask(big, times=20, prompt_tokens=900, output_tokens=150, streamed=streamed)
    competition.ask(small, times=20, prompt_tokens=10, output_tokens=1)
    shares = Counter(competition.serve(21)[1:])
    assert abs(shares["A"] - shares["B"]) <= 1


def test_by_requests_a_request_counts_once_whether_or_not_it_has_ended() -> None:
    order = LeastServedFirst(tokens_count=False)
    ended, running = head(A), head(B)
    for tracked in (ended, running):
        tracked.enter(RequestPhase.DISPATCHED)
        order.served(tracked, output_tokens=1)
    ended.enter(RequestPhase.COMPLETED)
    order.served(ended, output_tokens=1)
    assert names(order, head(A, sequence=1), head(B, sequence=2)) == "AB"


@pytest.mark.parametrize("streamed", [True, False])
def test_by_tokens_a_service_of_triple_cost_gets_a_third_of_the_requests(*, streamed: bool) -> None:
    big, small, _ = PLAIN
    competition = Competition(FairnessDimension.TOKENS, big, small)
    competition.ask(big, times=40, prompt_tokens=500, output_tokens=50, streamed=streamed)  # 600
    competition.ask(small, times=80, prompt_tokens=100, output_tokens=50)  # 200
    shares = Counter(competition.serve(60))
    assert shares["B"] == pytest.approx(3 * shares["A"], abs=4)


def test_by_tokens_an_output_token_costs_two_of_the_prompt() -> None:
    talker, reader, _ = PLAIN
    competition = Competition(FairnessDimension.TOKENS, talker, reader)
    competition.ask(talker, times=40, prompt_tokens=1, output_tokens=150)
    competition.ask(reader, times=40, prompt_tokens=299, output_tokens=1)
    shares = Counter(competition.serve(39)[1:])
    assert abs(shares["A"] - shares["B"]) <= 1


def test_by_tokens_what_was_expected_and_did_not_come_is_given_back() -> None:
    short, full, other = PLAIN
    competition = Competition(FairnessDimension.TOKENS, *PLAIN)
    competition.ask(other)
    competition.ask(short, output_tokens=150)
    competition.ask(full, times=2, output_tokens=50)
    competition.ask(short, output_tokens=50)
    assert competition.serve(1) == "C"
    competition.checked.finish("A2", TokenUsage(None, 1, None, 1))
    assert competition.serve(2) == "BA"


@pytest.mark.parametrize("dimension", [FairnessDimension.TOKENS, FairnessDimension.REQUESTS])
def test_a_service_of_weight_two_is_served_twice_as_much(dimension: FairnessDimension) -> None:
    heavy, light = service("A", weight=2.0), service("B")
    competition = Competition(dimension, heavy, light)
    competition.ask(heavy, times=60)
    competition.ask(light, times=60)
    shares = Counter(competition.serve(60))
    assert shares["A"] == pytest.approx(40, abs=2)


@pytest.mark.parametrize("dimension", [FairnessDimension.TOKENS, FairnessDimension.REQUESTS])
def test_a_service_that_was_idle_has_banked_nothing(dimension: FairnessDimension) -> None:
    busy, idle, _ = PLAIN
    competition = Competition(dimension, busy, idle)
    competition.ask(busy, times=60)
    competition.serve(40)
    competition.ask(idle, times=20)
    served = competition.serve(20)[1:]
    assert abs(served.count("A") - served.count("B")) <= 1


@pytest.mark.parametrize("dimension", [FairnessDimension.TOKENS, FairnessDimension.REQUESTS])
def test_it_has_banked_nothing_either_when_it_is_the_first_to_wait_again(
    dimension: FairnessDimension,
) -> None:
    busy, idle, _ = PLAIN
    competition = Competition(dimension, busy, idle)
    for _ in range(40):  # never a queue
        competition.ask(busy)
        competition.serve(1)
    competition.ask(busy)
    competition.ask(idle, times=20)
    competition.ask(busy, times=20)
    served = competition.serve(20)[1:]
    assert abs(served.count("A") - served.count("B")) <= 1


def test_a_retry_that_waits_again_is_served_in_its_turn() -> None:
    competition = Competition(FairnessDimension.REQUESTS, *PLAIN)
    checked = competition.checked
    competition.ask(PLAIN[0], times=2)
    competition.ask(PLAIN[1], times=2)
    checked.join("b")
    failed = checked.ids_in("in flight")[0]
    checked.fail(failed, FailureKind.CONNECT)
    assert checked.backend_of(failed) in {None, "b"}
    while checked.ids_in("in flight"):
        competition.checked.finish(checked.ids_in("in flight")[0], TokenUsage(None, 1, None, 1))
    assert checked.ids_in("queued") == []


@pytest.mark.parametrize("dimension", [FairnessDimension.TOKENS, FairnessDimension.REQUESTS])
def test_an_attempt_that_failed_is_not_charged(dimension: FairnessDimension) -> None:
    unlucky, other, _ = PLAIN
    competition = Competition(dimension, unlucky, other)
    competition.checked.join("b")
    competition.ask(unlucky)
    competition.checked.fail("A1", FailureKind.CONNECT)  # and runs on the other server
    competition.checked.finish("A1", TokenUsage(None, 50, None, 1))
    competition.checked.drain("b")
    competition.ask(other, times=3)
    competition.ask(unlucky, times=3)
    served = competition.serve(5)
    assert abs(served.count("A") - served.count("B")) <= 1


def test_by_tokens_who_leaves_early_is_charged_for_what_was_written() -> None:
    leaving, full, other = PLAIN
    competition = Competition(FairnessDimension.TOKENS, *PLAIN)
    competition.ask(other)
    competition.ask(leaving, output_tokens=150)
    competition.ask(full, times=2, output_tokens=50)
    competition.ask(leaving, output_tokens=50)
    assert competition.serve(1) == "C"
    competition.checked.cancel("A2")
    assert competition.serve(2) == "BA"
