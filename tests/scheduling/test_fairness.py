from gateway.scheduling.fairness import FirstComeFirstServed
from tests.builders import make_service, make_tracked


def test_first_come_first_served_goes_by_arrival_whatever_the_service() -> None:
    late = make_tracked("late", arrived_at=2.0, sequence=3, service=make_service("a"))
    early = make_tracked("early", arrived_at=1.0, sequence=1, service=make_service("c"))
    middle = make_tracked("middle", arrived_at=1.5, sequence=2, service=make_service("b"))
    ordered = FirstComeFirstServed().ordered([late, early, middle], now=9.0)
    assert ordered == [early, middle, late]


def test_arrivals_of_one_instant_go_by_their_number() -> None:
    second, first = make_tracked("second", sequence=2), make_tracked("first", sequence=1)
    assert FirstComeFirstServed().ordered([second, first], now=0.0) == [first, second]
