"""Which service goes next by SLO adherence: the largest use of its error budget."""

from collections import Counter
from collections.abc import Sequence

import pytest

from gateway.scheduling.fairness import LargestBurnFirst, ServiceOrder
from gateway.scheduling.model import CRITICAL, LatencyObjective, LLMService
from gateway.scheduling.policy import FairnessPolicy
from gateway.scheduling.slo_adherence import SloAdherence
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_service, make_tracked

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


class History:
    """Outcomes of services, and the order that follows from them."""

    def __init__(self, *, tolerance: float = 0.02) -> None:
        policy = FairnessPolicy(tolerance=tolerance)
        self.adherence = SloAdherence(policy=policy)
        self.order = LargestBurnFirst(policy=policy, adherence=self.adherence)

    def ended(self, of: LLMService, *, met: int, missed: int, now: float = 0.0) -> None:
        for number in range(met + missed):
            self.adherence.settle(head(of), missed=number < missed, now=now)


def test_who_is_worst_off_goes_first() -> None:
    history = History()
    history.ended(A, met=98, missed=2)
    history.ended(B, met=94, missed=6)
    assert names(history.order, head(A, sequence=1), head(B, sequence=2)) == "BA"


def test_who_is_worst_off_goes_first_also_the_other_way_round() -> None:
    history = History()
    history.ended(A, met=94, missed=6)
    history.ended(B, met=98, missed=2)
    assert names(history.order, head(A, sequence=2), head(B, sequence=1)) == "AB"


def test_all_heads_come_out_the_worst_off_first() -> None:
    history = History()
    for of, missed in ((A, 10), (B, 40), (C, 25)):
        history.ended(of, met=100 - missed, missed=missed)
    heads = [head(A), head(B), head(C), head(B, sequence=2)]
    assert names(history.order, *heads) == "BBCA"


@pytest.mark.parametrize(("missed", "first"), [(2, "A"), (9, "B")])
def test_within_the_tolerance_the_earliest_deadline_decides(missed: int, first: str) -> None:
    history = History()
    history.ended(A, met=100, missed=0)
    history.ended(B, met=100 - missed, missed=missed)
    heads = (head(A, ttft_s=0.5), head(B, ttft_s=1.0))
    assert names(history.order, *heads)[0] == first


def test_the_tolerance_is_configurable() -> None:
    history = History(tolerance=0.2)
    history.ended(A, met=100, missed=0)
    history.ended(B, met=91, missed=9)
    assert names(history.order, head(A, ttft_s=0.5), head(B, ttft_s=1.0)) == "AB"


def test_the_tolerance_is_in_adherence_whatever_the_weight() -> None:
    heavy = service("heavy", weight=2.0)
    history = History()
    history.ended(heavy, met=100, missed=0)
    history.ended(B, met=95, missed=5)
    assert names(history.order, head(heavy, ttft_s=0.5), head(B, ttft_s=1.0)) == "heavyB"


def test_what_is_in_flight_with_little_hope_counts_already() -> None:
    history = History()
    for _ in range(30):
        history.adherence.dispatched(head(B), miss_probability=0.9)
    assert names(history.order, head(A, ttft_s=0.5), head(B, ttft_s=1.0)) == "BA"


def test_what_a_service_has_missed_gives_no_turn_to_those_that_nothing_can_serve_in_time() -> None:
    history = History()
    history.ended(A, met=80, missed=20)
    history.ended(B, met=0, missed=20)
    hopeless = head(B, ttft_s=0.5)
    assert names(history.order, head(A), hopeless) == "BA"
    hopeless.impossible = True
    assert names(history.order, head(A), hopeless) == "AB"


def test_a_strict_target_is_burnt_faster_by_the_same_misses() -> None:
    strict = make_service(
        "S", priority=CRITICAL, objective=LatencyObjective(ttft_s=1.0, percentile=0.99)
    )
    history = History()
    history.ended(A, met=90, missed=10)
    history.ended(strict, met=90, missed=10)
    assert names(history.order, head(A, ttft_s=0.5), head(strict, ttft_s=1.0)) == "SA"


def misses_of(services: Sequence[LLMService], *, rounds: int = 1_200) -> Counter[str]:
    """Every quarter of a second each service asks once; there is room for half of them."""
    history = History()
    misses: Counter[str] = Counter()
    for number in range(rounds):
        now = number / 4
        heads = [head(of, arrived_at=now, sequence=n) for n, of in enumerate(services)]
        served = list(history.order.ordered(heads, now=now))
        for place, tracked in enumerate(served):
            missed = place >= len(services) / 2
            misses[tracked.service.name] += missed
            history.adherence.settle(tracked, missed=missed, now=now)
    return misses


def test_services_that_burn_alike_take_turns() -> None:
    misses = misses_of([A, B])
    assert misses["A"] == pytest.approx(misses["B"], rel=0.05)


def test_weight_two_about_halves_the_rate_of_misses() -> None:
    misses = misses_of([service("heavy", weight=2.0), B, C, service("D")])
    assert misses["B"] == pytest.approx(misses["C"], rel=0.05)
    assert misses["heavy"] == pytest.approx(misses["B"] / 2, rel=0.15)
