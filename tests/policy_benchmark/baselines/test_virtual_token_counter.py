from gateway.policy_benchmark.baselines.virtual_token_counter import VirtualTokenCounter
from gateway.scheduling.model import ServiceName
from tests.policy_benchmark.baselines.baseline_rig import request

A, B = ServiceName("a"), ServiceName("b")


def order_of(counter: VirtualTokenCounter, count: int) -> list[str]:
    left = [counter.pop() for _ in range(count)]
    return [r.id for r in left if r is not None]


def filled(counter: VirtualTokenCounter) -> VirtualTokenCounter:
    for number in range(3):
        counter.push(request(f"a{number}", service="a", prompt_tokens=100))
        counter.push(request(f"b{number}", service="b", prompt_tokens=250))
    return counter


def test_the_service_with_fewer_tokens_served_goes_next() -> None:
    # Counters before each: 0/0 a, 100/0 b, 100/250 a, 200/250 a, 300/250 b, b is left.
    counter = filled(VirtualTokenCounter({}))
    assert order_of(counter, 6) == ["a0", "b0", "a1", "a2", "b1", "b2"]


def test_output_tokens_cost_double() -> None:
    counter = filled(VirtualTokenCounter({}))
    assert order_of(counter, 1) == ["a0"]
    counter.served(A, 300)
    # a has 100 + 600 = 700, b 0, 250, 500.
    assert order_of(counter, 3) == ["b0", "b1", "b2"]


def test_a_service_of_weight_two_gets_twice_as_much() -> None:
    counter = filled(VirtualTokenCounter({B: 2.5}))
    # b pays 250 / 2.5 = 100 per request: they alternate.
    assert order_of(counter, 4) == ["a0", "b0", "a1", "b1"]


def test_a_service_that_returns_from_idleness_is_lifted_not_credited() -> None:
    counter = VirtualTokenCounter({})
    for number in range(4):
        counter.push(request(f"a{number}", service="a", prompt_tokens=100))
    assert order_of(counter, 3) == ["a0", "a1", "a2"]
    counter.push(request("b0", service="b", prompt_tokens=1))
    counter.push(request("b1", service="b", prompt_tokens=500))
    counter.push(request("b2", service="b", prompt_tokens=1))
    # b starts at a's 300, not at 0: b0 brings it to 301, so a3 goes before b1.
    assert order_of(counter, 4)[:2] == ["a3", "b0"]


def test_an_empty_queue_gives_nothing() -> None:
    assert VirtualTokenCounter({}).pop() is None
