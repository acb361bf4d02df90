"""Servers that fail are left out, probed and taken back; CheckedScheduler checks each step."""

from dataclasses import replace

from gateway.scheduling import events as ev
from gateway.scheduling.breaker import Circuit
from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import BackendId, BackendLoad, RequestId, TokenUsage
from gateway.scheduling.policy import BreakerPolicy, PickerKind, RetryPolicy
from gateway.scheduling.snapshot import BackendSnapshot
from tests.builders import make_policy, make_request
from tests.scheduling.checked_scheduler import CheckedScheduler

BREAKER = BreakerPolicy(consecutive_failures=3, first_ejection_s=1.0, longest_ejection_s=8.0)
RETRY = RetryPolicy(max_attempts=9, budget_burst=1_000.0)


class Pool(CheckedScheduler):
    """Servers that answer or fail each request at once."""

    def __init__(
        self,
        *servers: str,
        slots: int = 256,
        picker: PickerKind = PickerKind.LATENCY,
        breaker: BreakerPolicy = BREAKER,
    ) -> None:
        policy = make_policy(slots=slots, retry=RETRY, picker=picker)
        super().__init__(replace(policy, breaker=breaker))
        self.failing: dict[str, FailureKind] = {}
        self._asked = 0
        for server in servers:
            self.join(server, "lora-a")

    def ask(self) -> str | None:
        """One request, tried until a server answers; the server, or None while it waits."""
        self._asked += 1
        name = f"r{self._asked}"
        self.arrive(make_request(name))
        while (server := self.backend_of(name)) in self.failing:
            assert server is not None
            self.fail(name, self.failing[server])
        if server is not None:
            self.first_token(name)
            self.finish(name, TokenUsage(100, 50, None, 50))
        return server

    def eject(self, server: str) -> None:
        """Let as many requests as it takes fail there, all sent before the first one fails."""
        names = [f"{server}{number}" for number in range(40)]
        for name in names:
            self.arrive(make_request(name))
        for name in names:
            if self.backend_of(name) == server and self.of(server).circuit is Circuit.CLOSED:
                self.fail(name, FailureKind.SERVER_ERROR, retryable=False)
            else:
                self.cancel(name)
        assert self.of(server).circuit is Circuit.OPEN

    def of(self, server: str) -> BackendSnapshot:
        snapshot = self.scheduler.snapshot(now=self.now)
        return next(b for b in snapshot.backends if b.backend_id == server)

    def ejected(self) -> list[str]:
        snapshot = self.scheduler.snapshot(now=self.now)
        return [str(b.backend_id) for b in snapshot.backends if b.ejected]

    def told(self) -> list[tuple[str | None, str]]:
        return [(c.backend_id, c.state) for c in self.scheduler.take_health_changes()]


def test_a_server_that_fails_fast_gets_no_more_than_its_failures_and_probes() -> None:
    for picker in PickerKind:
        pool = Pool("a", "b", "c", picker=picker)
        pool.failing["a"] = FailureKind.OVERLOADED
        for _ in range(1_000):
            pool.now += 0.01
            assert pool.ask() in ("b", "c")
        tries = pool.of("a").failures[FailureKind.OVERLOADED]
        assert tries <= 3 + 4  # in a row, then probes after 1, 2, 4, 8 s


def test_one_probe_at_a_time_and_its_success_readmits() -> None:
    pool = Pool("a", "b", "c")
    pool.eject("a")
    assert pool.told() == [("a", Circuit.OPEN)]
    pool.now += 1.0
    pool.arrive(make_request("probe"))
    assert pool.backend_of("probe") == "a"
    assert pool.ejected() == ["a"]
    pool.arrive(make_request("other"))
    assert pool.backend_of("other") != "a"
    pool.first_token("probe")
    assert pool.ejected() == []
    assert pool.of("a").failure_rate == 0.0
    assert pool.told() == [("a", Circuit.HALF_OPEN), ("a", Circuit.CLOSED)]
    assert pool.told() == []


def test_a_request_from_before_the_ejection_ends_without_a_second_probe() -> None:
    pool = Pool("a", "b", "c")
    for number in range(9):
        pool.arrive(make_request(f"old{number}"))
    old = next(f"old{number}" for number in range(9) if pool.backend_of(f"old{number}") == "a")
    pool.eject("a")
    pool.now += 1.0
    pool.arrive(make_request("probe"))
    assert pool.backend_of("probe") == "a"
    pool.cancel(old)
    pool.arrive(make_request("next"))
    assert pool.backend_of("next") != "a"


def test_a_probe_that_its_client_leaves_is_followed_by_another() -> None:
    pool = Pool("a", "b", "c")
    pool.eject("a")
    pool.now += 1.0
    pool.arrive(make_request("probe"))
    pool.cancel("probe")
    pool.arrive(make_request("next"))
    assert pool.backend_of("next") == "a"


def test_a_refusal_of_the_request_itself_says_nothing_about_the_server() -> None:
    pool = Pool("a")
    for number in range(50):
        pool.arrive(make_request(f"bad{number}"))
        pool.finish(f"bad{number}", ok=False)
    assert pool.of("a").failures == {}
    assert pool.of("a").failure_rate == 0.0


def test_a_request_that_failed_elsewhere_is_no_probe() -> None:
    pool = Pool("a", "b", "c")
    pool.eject("a")
    pool.arrive(make_request("unlucky"))
    first = pool.backend_of("unlucky")
    pool.now += 1.0
    pool.fail("unlucky", FailureKind.RESET)
    assert pool.backend_of("unlucky") not in ("a", first)


def test_when_more_than_the_share_would_be_ejected_all_are_used() -> None:
    pool = Pool("a", "b", "c", "d")
    for server in "abc":
        pool.eject(server)
    assert pool.scheduler.snapshot(now=pool.now).panic
    assert pool.ejected() == []
    assert (None, "panic") in pool.told()
    for _ in range(30):
        pool.now += 0.1
        pool.ask()
    assert not pool.scheduler.snapshot(now=pool.now).panic
    assert (None, "calm") in pool.told()


def test_the_only_server_is_never_ejected() -> None:
    pool = Pool("a")
    pool.eject("a")
    assert pool.ejected() == []
    assert pool.ask() == "a"


def test_who_waits_is_served_when_the_ejected_server_may_be_probed() -> None:
    pool = Pool("a", "b", slots=1)
    pool.eject("a")
    pool.arrive(make_request("long"))
    assert pool.arrive(make_request("waits")) == []
    began_at = pool.now
    (dispatch,) = pool.pass_deadline()
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.request_id, dispatch.backend_id) == ("waits", "a")
    assert pool.now - began_at <= 1.0


def test_who_waits_is_served_when_the_pool_panics() -> None:
    pool = Pool("a", "b", slots=1)
    pool.eject("a")
    pool.arrive(make_request("long"))
    pool.arrive(make_request("waits"))
    (dispatch,) = pool.leave("b")
    assert isinstance(dispatch, Dispatch)
    assert dispatch.backend_id == "a"


def test_a_server_that_was_restarted_is_probed_at_once() -> None:
    pool = Pool("a", "b", "c")
    pool.eject("a")
    pool.leave("a")
    pool.join("a", "lora-a")
    assert pool.ask() == "a"
    assert pool.ejected() == []


def test_a_chance_of_failure_is_forgotten_with_time_although_no_request_goes_there() -> None:
    for picker in PickerKind:
        pool = Pool("a", "b", picker=picker, breaker=replace(BREAKER, consecutive_failures=9))
        for number in range(8):
            pool.arrive(make_request(f"together{number}"))
        for number in range(8):
            name = f"together{number}"
            pool.fail(name, retryable=False) if pool.backend_of(name) == "a" else pool.finish(name)
        assert pool.of("a").failure_rate > 0.1
        assert [pool.ask() for _ in range(5)] == ["b"] * 5
        pool.now += 200.0
        pool.report("b", BackendLoad())
        assert pool.of("a").failure_rate == 0.0


def answer_all(pool: Pool, number: int, *, slow_s: float) -> None:
    """One request on each of three servers of one place; "a" needs so much longer than 1 s."""
    names = [f"{number}-{n}" for n in range(3)]
    for name in names:
        pool.arrive(make_request(name))
    late = [name for name in names if pool.backend_of(name) == "a"]
    there = [name for name in names if pool.backend_of(name) is not None]
    for name in there:
        pool.first_token(name)
    pool.now += 1.0
    for name in [*(n for n in there if n not in late), *late]:
        pool.now += slow_s if name in late else 0.0
        pool.finish(name, TokenUsage(100, 50, None, 50))


def test_a_server_far_slower_than_the_others_is_ejected() -> None:
    pool = Pool("a", "b", "c", slots=1, breaker=replace(BREAKER, slow_factor=5.0))
    for number in range(40):
        answer_all(pool, number, slow_s=3.0)
    assert pool.ejected() == []
    for number in range(40, 100):
        if not pool.ejected():
            answer_all(pool, number, slow_s=9.0)
    assert pool.ejected() == ["a"]
    reasons = [change.reason for change in pool.scheduler.take_health_changes()]
    assert "times as slow as others" in reasons[0]


def test_short_answers_and_those_that_show_no_first_token_tell_no_pace() -> None:
    pool = Pool("a", "b", "c", slots=1, breaker=replace(BREAKER, slow_factor=5.0))
    for number in range(100):
        for name in (names := [f"{number}-{n}" for n in range(3)]):
            pool.arrive(make_request(name, streamed=number % 2 == 0))
        for name in names:
            if pool.backend_of(name) is not None:
                if number % 2 == 0:
                    pool.first_token(name)
                pool.now += 0.01 if pool.backend_of(name) != "a" else 9.0
                tokens = 5 if number % 2 == 0 else 50
                pool.finish(name, TokenUsage(100, tokens, None, tokens))
    assert pool.ejected() == []


def test_a_probe_waits_while_the_server_has_no_room() -> None:
    pool = Pool("a", "b", "c")
    pool.eject("a")
    pool.now += 1.0
    pool.report("a", BackendLoad(running=9, waiting=9))
    assert pool.ask() in ("b", "c")
    pool.report("a", BackendLoad(running=9, waiting=0))
    assert pool.ask() == "a"


def test_bounds_that_are_turned_off_eject_nobody() -> None:
    off = replace(BREAKER, max_ejected_share=0.0)
    pool = Pool("a", "b", "c", breaker=off)
    pool.eject("a")
    assert pool.ejected() == []


def test_new_bounds_hold_at_once() -> None:
    pool = Pool("a", "b", "c")
    pool.eject("a")
    policy = make_policy(retry=RETRY)
    pool.feed(ev.PoliciesChanged(replace(policy, breaker=replace(BREAKER, max_ejected_share=0.0))))
    assert pool.ejected() == []


def test_a_server_that_drains_does_not_count_among_those_that_are_left() -> None:
    pool = Pool("a", "b")
    pool.eject("a")
    pool.drain("b")
    assert pool.ejected() == []
    assert pool.scheduler.explain(RequestId("nothing")) is None
    assert pool.of("b").backend_id == BackendId("b")
