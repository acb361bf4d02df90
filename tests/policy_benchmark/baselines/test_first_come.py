from gateway.policy_benchmark.baselines.first_come import FirstCome
from tests.policy_benchmark.baselines.baseline_rig import request


def test_requests_leave_in_the_order_of_arrival_whatever_their_service() -> None:
    order = FirstCome()
    for request_id, service in (("r1", "a"), ("r2", "b"), ("r3", "a")):
        order.push(request(request_id, service=service))
    left = [order.pop() for _ in range(3)]
    assert [r.id for r in left if r is not None] == ["r1", "r2", "r3"]
    assert order.pop() is None
