import pytest

from gateway.scheduling.events import FailureKind
from gateway.scheduling.policy import RetryPolicy
from gateway.scheduling.retry_budget import RetryBudget


def budget(*, burst: float, ratio: float = 0.25) -> RetryBudget:
    return RetryBudget(policy=RetryPolicy(budget_burst=burst, budget_ratio=ratio))


def test_the_burst_is_there_from_the_start_and_then_used_up() -> None:
    spent = budget(burst=2.0)
    assert [spent.spend(FailureKind.TIMEOUT) for _ in range(3)] == [True, True, False]


def test_first_dispatches_earn_retries() -> None:
    earning = budget(burst=1.0, ratio=0.25)
    assert earning.spend(FailureKind.OVERLOADED)
    for _ in range(3):
        earning.earn()
    assert not earning.spend(FailureKind.OVERLOADED)
    earning.earn()
    assert earning.spend(FailureKind.OVERLOADED)


def test_no_more_than_the_burst_is_saved() -> None:
    saving = budget(burst=1.0)
    for _ in range(100):
        saving.earn()
    assert [saving.spend(FailureKind.TIMEOUT) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("kind", [FailureKind.CONNECT, FailureKind.RESET])
def test_lost_connections_are_retried_whatever_the_budget(kind: FailureKind) -> None:
    assert budget(burst=0.0).spend(kind)
