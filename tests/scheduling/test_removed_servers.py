"""Servers that are taken out of the pool: what is kept of them, and for how long."""

from gateway.scheduling import events as ev
from gateway.scheduling.model import BackendId, RequestId, TokenUsage
from tests.builders import make_request, serving
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.scheduler_scenes import scheduler_of

LONG_S = 901.0
MANY = 64


def known(checked: CheckedScheduler) -> list[str]:
    return [b.backend_id for b in checked.scheduler.snapshot(now=checked.now).backends]


def samples(checked: CheckedScheduler, backend_id: str) -> int:
    """First tokens that forecasts for the server have been compared with."""
    snapshot = checked.scheduler.snapshot(now=checked.now)
    return next(b.ttft_forecasts.samples for b in snapshot.backends if b.backend_id == backend_id)


def taught(*backends: str) -> CheckedScheduler:
    """Servers that have each answered one request, with an adapter."""
    checked = CheckedScheduler(scheduler_of()._policy)
    for name in backends:
        checked.join(name, "lora-a")
        checked.arrive(make_request(f"to-{name}", model="lora-a"))
        checked.now += 0.1
        checked.first_token(f"to-{name}")
        checked.finish(f"to-{name}", TokenUsage(10, 5, None, 5))
        checked.drain(name)
    return checked


def test_a_removed_server_that_returns_soon_is_still_known() -> None:
    checked = taught("a")
    checked.leave("a", for_good=True)
    checked.now += LONG_S - 2.0
    checked.join("a", "lora-a")
    assert samples(checked, "a") == 1


def test_a_removed_server_that_returns_late_starts_anew() -> None:
    checked = taught("a")
    checked.leave("a", for_good=True)
    checked.now += LONG_S
    checked.join("a", "lora-a")
    assert samples(checked, "a") == 0


def test_a_server_that_came_back_is_not_forgotten_for_having_been_away() -> None:
    checked = taught("a")
    checked.leave("a", for_good=True)
    checked.join("a", "lora-a")
    checked.now += 2 * LONG_S
    checked.join("b")
    assert known(checked) == ["a", "b"]
    assert samples(checked, "a") == 1


def test_a_server_that_is_only_down_is_not_forgotten() -> None:
    checked = taught("a")
    checked.leave("a")
    checked.now += 10 * LONG_S
    checked.join("b")
    assert known(checked) == ["a", "b"]


def test_a_server_that_was_down_before_it_was_removed_is_forgotten_too() -> None:
    checked = taught("a")
    checked.leave("a")
    checked.now += 10 * LONG_S
    checked.leave("a", for_good=True)
    checked.now += LONG_S
    checked.join("b")
    assert known(checked) == ["b"]


def test_to_hear_again_that_a_server_is_removed_does_not_keep_it_longer() -> None:
    checked = taught("a")
    for _ in range(3):
        checked.leave("a", for_good=True)
        checked.now += LONG_S / 2
    checked.join("b")
    assert known(checked) == ["b"]


def test_thousands_of_names_that_come_and_go_leave_the_newest_only() -> None:
    checked = taught()
    feed = checked.scheduler.handle
    for number in range(2_000):
        name = BackendId(f"pod-{number}")
        feed(ev.BackendJoined(name, serving("lora-a")), now=checked.now)
        request = make_request(f"r{number}", model="lora-a")
        feed(ev.RequestArrived(request), now=checked.now)
        feed(ev.ResponseFinished(request.id, TokenUsage()), now=checked.now)
        feed(ev.BackendLeft(name, for_good=True), now=checked.now)
    assert known(checked) == [f"pod-{number}" for number in range(2_000 - MANY, 2_000)]
    ledger, predictor = checked.scheduler._ledger, checked.scheduler._flights._predictor
    assert len(predictor._timings) == MANY
    assert sum(len(held) for held in ledger._holders._holders.values()) <= MANY


def test_a_server_with_requests_is_kept_until_they_have_ended() -> None:
    checked = taught()
    checked.join("a", "lora-a")
    checked.arrive(make_request("r1", model="lora-a"))
    checked.leave("a", for_good=True)
    checked.now += 2 * LONG_S
    checked.join("b")
    assert known(checked) == ["a", "b"]
    checked.finish("r1")
    checked.join("c")
    assert known(checked) == ["b", "c"]


def test_requests_end_well_on_a_removed_server_that_returns() -> None:
    checked = taught()
    checked.join("a", "lora-a")
    checked.arrive(make_request("r1", model="lora-a"))
    checked.leave("a", for_good=True)
    checked.now += 2 * LONG_S
    checked.join("a", "lora-a")
    checked.arrive(make_request("r2", model="lora-a"))
    checked.finish("r1")
    (server,) = checked.scheduler.snapshot(now=checked.now).backends
    assert (server.requests, server.active_adapters) == (1, {"lora-a": 1})
    checked.cancel("r2")
    assert checked.scheduler.explain(RequestId("r2")) is not None


def test_a_forgotten_server_is_nowhere_a_request_could_go() -> None:
    checked = taught("a")
    checked.leave("a", for_good=True)
    checked.now += LONG_S
    checked.join("b", "lora-b")
    checked.arrive(make_request("r1", model="lora-b"))
    assert checked.backend_of("r1") == "b"
    before = checked.scheduler.snapshot(now=checked.now).ignored_events
    checked.drain("a")
    assert checked.scheduler.snapshot(now=checked.now).ignored_events == before + 1
