"""Whether a server is open to a request by the times predicted for it there."""

import pytest

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import CRITICAL, NON_CRITICAL, BackendId, LatencyObjective
from gateway.scheduling.policy import CapacityPolicy
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_ledger, make_service, make_tracked, serving


class Pool:
    """Servers, and what is known of their speed."""

    def __init__(self, policy: CapacityPolicy | None = None) -> None:
        self.predictor = LatencyPredictor(prior=StepTimePrior())
        self.capacity = Capacity(policy=policy or CapacityPolicy(), predictor=self.predictor)
        self._ledger = make_ledger()

    def idle(self, name: str = "a") -> BackendState:
        return self._ledger.join(BackendId(name), serving())

    def busy(
        self, name: str = "a", *, tpot_bound_s: float | None = None, prefill_tokens: int = 0
    ) -> BackendState:
        """A server with one stream, which needs this TPOT, and a prefill before the next step."""
        backend = self.idle(name)
        stream = make_tracked(f"on-{name}")
        stream.tpot_bound_s = tpot_bound_s
        self.predictor.dispatched(backend, stream, now=0.0)
        self._ledger.reserve(backend, stream, now=0.0)
        self._ledger.end_prefill(backend, stream)
        self.predictor.first_token(backend, stream, now=0.0)
        if prefill_tokens:
            waiting = make_tracked("prefills", prompt_tokens=prefill_tokens)
            self.predictor.dispatched(backend, waiting, now=0.0)
        return backend

    def known(self, name: str = "a") -> BackendState:
        """An idle server that has shown to be as fast as the prior."""
        backend, prior = self.idle(name), StepTimePrior()
        timing = self.predictor.timing(backend.id)
        for _ in range(20):
            timing.decode.learn(sequences=0.0, context_tokens=0.0, step_s=prior.step_s)
            timing.prefill.learn(tokens=0.0, seconds=prior.overhead_s, measured_s=prior.overhead_s)
        return backend

    def opened(
        self, tracked: TrackedRequest, *backends: BackendState, now: float = 0.0
    ) -> list[str]:
        found = self.capacity.open_among(tracked, backends, now=now)
        return [server.backend.id for server in found]

    def is_impossible(self, tracked: TrackedRequest, *backends: BackendState) -> bool:
        return self.capacity.is_impossible(tracked, backends)


@pytest.fixture
def pool() -> Pool:
    return Pool()


def bound_by(
    *,
    ttft_s: float = 10.0,
    tpot_s: float | None = None,
    priority: int = CRITICAL,
    own: bool = True,
    late: bool = False,
    prompt_tokens: int = 100,
) -> TrackedRequest:
    """A request with these bounds; they are the pool's default if not its `own`."""
    objective = LatencyObjective(ttft_s=ttft_s, tpot_s=tpot_s) if own else None
    service = make_service(objective=objective, priority=priority)
    tracked = make_tracked("bound", service=service, prompt_tokens=prompt_tokens)
    tracked.ttft_bound_s, tracked.tpot_bound_s, tracked.late = ttft_s, tpot_s, late
    return tracked


def just_kept_s(margin: float) -> float:
    """The TPOT bound that a busy server's forecast just keeps."""
    pool = Pool()
    return pool.predictor.predict(pool.busy(), bound_by(), now=0.0).tpot_s / margin


# -- the pace ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "margin"), [(0, 0.88), (-1, 0.84)])
def test_a_pace_within_the_margin_of_its_own_bound_opens_a_server(
    pool: Pool, priority: int, margin: float
) -> None:
    backend, just_s = pool.busy(), just_kept_s(margin)
    assert pool.opened(bound_by(tpot_s=just_s * 1.001, priority=priority), backend)
    assert not pool.opened(bound_by(tpot_s=just_s * 0.999, priority=priority), backend)


@pytest.mark.parametrize("own_tpot_s", [0.5, None])
def test_the_strictest_pace_of_those_that_run_there_counts(
    pool: Pool, own_tpot_s: float | None
) -> None:
    just_s = just_kept_s(0.88)
    backend = pool.busy(tpot_bound_s=just_s * 1.001)
    assert pool.opened(bound_by(tpot_s=own_tpot_s), backend)
    backend.strictest_tpot_s = just_s * 0.999
    assert not pool.opened(bound_by(tpot_s=own_tpot_s), backend)


def test_a_request_without_an_objective_is_held_to_the_default_where_others_run(
    pool: Pool,
) -> None:
    too_strict = bound_by(tpot_s=just_kept_s(0.88) * 0.999, own=False)
    assert not pool.opened(too_strict, pool.busy("a"))
    assert pool.opened(too_strict, pool.idle("b"))


def test_an_idle_server_is_not_closed_by_a_pace_that_it_can_never_have(pool: Pool) -> None:
    assert pool.opened(bound_by(tpot_s=0.005), pool.idle("a"))
    assert not pool.opened(bound_by(tpot_s=0.005), pool.busy("b"))


def test_prefills_that_come_together_close_a_server_for_a_moment(pool: Pool) -> None:
    """On average of ten seconds there is room for them; a short answer has one."""
    bound_s, prior = 3.0 * just_kept_s(0.88), StepTimePrior()
    backend = pool.busy()
    small = bound_by(tpot_s=bound_s)
    assert pool.opened(small, backend)
    pool.predictor.dispatched(
        backend, make_tracked("burst", prompt_tokens=int(0.75 / prior.per_prefill_token_s)), now=0.0
    )
    assert pool.predictor.predict(backend, small, now=0.0).tpot_s < 0.88 * bound_s
    assert not pool.opened(small, backend)
    assert pool.opened(small, backend, now=1.0)


def test_where_answers_are_long_a_second_counts_for_less(pool: Pool) -> None:
    bound_s, backend = 1.05 * just_kept_s(0.88), pool.busy()
    long = bound_by(tpot_s=bound_s, prompt_tokens=5_000)
    backend.expected_output_tokens = 300
    assert not pool.opened(long, backend)
    backend.expected_output_tokens = 900
    assert pool.opened(long, backend)


def test_a_longer_prompt_needs_a_calmer_moment(pool: Pool) -> None:
    bound_s, backend = 1.05 * just_kept_s(0.88), pool.busy()
    long = bound_by(tpot_s=bound_s, prompt_tokens=5_000)
    assert pool.predictor.predict(backend, long, now=0.0).tpot_s < 0.88 * bound_s
    assert not pool.opened(long, backend)
    assert pool.opened(bound_by(tpot_s=bound_s), backend)


def test_however_long_a_prompt_no_server_need_run_empty_for_it(pool: Pool) -> None:
    """A prefill of two seconds is weighed like one of a quarter of a second."""
    huge = bound_by(ttft_s=100.0, tpot_s=2.0 * just_kept_s(0.88), prompt_tokens=50_000)
    assert pool.opened(huge, pool.busy())


@pytest.mark.parametrize(("priority", "opens"), [(CRITICAL, True), (-1, False)])
def test_a_long_critical_prompt_in_a_hurry_waits_for_no_calmer_moment(
    pool: Pool, priority: int, *, opens: bool
) -> None:
    bound_s, backend = 1.07 * just_kept_s(0.84), pool.busy()
    long = bound_by(tpot_s=bound_s, prompt_tokens=6_500, priority=priority)
    assert pool.predictor.predict(backend, long, now=0.0).tpot_s < 0.84 * bound_s
    assert not pool.opened(long, backend, now=4.9)
    assert bool(pool.opened(long, backend, now=5.1)) is opens


# -- the first token --------------------------------------------------------------------------


def test_the_first_token_must_come_within_what_waiting_has_left(pool: Pool) -> None:
    """Scenario 19: of 400 ms, after 300 ms in the queue, 100 ms are left."""
    backend = pool.idle()
    ttft_s = pool.predictor.predict(backend, bound_by(), now=0.0).ttft_s
    tracked = bound_by(ttft_s=0.3 + ttft_s / 0.88)
    assert pool.opened(tracked, backend, now=0.299)
    assert not pool.opened(tracked, backend, now=0.301)


def test_waiting_uses_up_no_budget_where_there_is_no_objective(pool: Pool) -> None:
    assert pool.opened(bound_by(ttft_s=0.3, own=False), pool.busy(), now=100.0)


def test_the_soonest_first_token_is_that_of_the_best_server(pool: Pool) -> None:
    far, near = pool.busy("far", prefill_tokens=9_000), pool.idle("near")
    expected_s = pool.predictor.predict(near, bound_by(), now=0.0).ttft_p90_s
    assert pool.capacity.soonest_ttft_s(bound_by(), [far, near], now=0.0) == expected_s
    assert pool.capacity.soonest_ttft_s(bound_by(), [], now=0.0) == float("inf")


# -- late Critical requests -------------------------------------------------------------------


def test_a_late_request_gets_the_server_that_gives_its_first_token_soonest(pool: Pool) -> None:
    servers = [
        pool.busy(name, prefill_tokens=tokens)
        for name, tokens in (("long", 9_000), ("short", 500), ("middle", 3_000))
    ]
    assert pool.opened(bound_by(ttft_s=0.001, late=True), *servers) == ["short"]


def test_a_request_that_is_not_late_waits_for_a_server_in_time(pool: Pool) -> None:
    assert pool.opened(bound_by(ttft_s=0.001), pool.busy(prefill_tokens=500)) == []


def test_a_server_in_time_is_better_than_the_soonest(pool: Pool) -> None:
    servers = [pool.busy("too-late", prefill_tokens=20_000), pool.busy("in-time")]
    assert pool.opened(bound_by(ttft_s=0.5, late=True), *servers) == ["in-time"]


def test_a_late_request_may_not_slow_down_those_that_run(pool: Pool) -> None:
    servers = [
        pool.busy("strict", prefill_tokens=500, tpot_bound_s=0.001),
        pool.busy("patient", prefill_tokens=3_000),
    ]
    assert pool.opened(bound_by(ttft_s=0.001, late=True), *servers) == ["patient"]


def test_a_request_that_is_too_late_anyway_leaves_the_last_of_a_server_to_those_in_time(
    pool: Pool,
) -> None:
    backend, just_s = pool.busy(), just_kept_s(0.80)
    assert pool.opened(bound_by(ttft_s=0.001, tpot_s=just_s * 1.001, late=True), backend)
    assert not pool.opened(bound_by(ttft_s=0.001, tpot_s=just_s * 0.999, late=True), backend)


def test_a_late_request_that_may_yet_be_in_time_leaves_nothing(pool: Pool) -> None:
    backend, just_s = pool.busy(), just_kept_s(0.88)
    assert pool.opened(bound_by(tpot_s=just_s * 1.001, late=True), backend)


def test_an_idle_server_is_left_by_nobody(pool: Pool) -> None:
    assert pool.opened(bound_by(ttft_s=0.001, tpot_s=0.001, late=True), pool.idle())


def test_what_late_requests_leave_is_not_for_non_critical_ones_behind_them(pool: Pool) -> None:
    backend, just_s = pool.busy(), just_kept_s(0.80 * 0.975)
    opened = [
        bool(
            pool.capacity.open_among(
                bound_by(tpot_s=just_s * share, priority=NON_CRITICAL),
                [backend],
                now=0.0,
                behind_late=True,
            )
        )
        for share in (1.001, 0.999)
    ]
    assert opened == [True, False]
    assert pool.opened(bound_by(tpot_s=just_s * 0.999, priority=NON_CRITICAL), backend)


def test_a_margin_for_late_requests_above_the_others_changes_nothing() -> None:
    pool = Pool(CapacityPolicy(margin_late=0.95))
    backend, just_s = pool.busy(), just_kept_s(0.88)
    assert not pool.opened(bound_by(ttft_s=0.001, tpot_s=just_s * 0.999, late=True), backend)
    batch = bound_by(tpot_s=just_kept_s(0.84) * 0.999, priority=NON_CRITICAL)
    assert not pool.capacity.open_among(batch, [backend], now=0.0, behind_late=True)


# -- objectives that cannot be met ------------------------------------------------------------

IMPOSSIBLE = (
    bound_by(ttft_s=0.001, tpot_s=0.5),
    bound_by(ttft_s=1.0, tpot_s=0.005),
    bound_by(ttft_s=0.001),
    bound_by(ttft_s=1.0, prompt_tokens=10**6),
)


@pytest.mark.parametrize("tracked", IMPOSSIBLE)
def test_what_no_idle_server_could_keep_is_impossible(pool: Pool, tracked: TrackedRequest) -> None:
    assert pool.is_impossible(tracked, pool.known("a"), pool.known("b"))


@pytest.mark.parametrize("tracked", IMPOSSIBLE)
def test_what_is_not_known_of_one_server_makes_nothing_impossible(
    pool: Pool, tracked: TrackedRequest
) -> None:
    assert not pool.is_impossible(tracked, pool.known("a"), pool.idle("new"))
    assert not pool.is_impossible(tracked)


@pytest.mark.parametrize("tpot_s", [0.02, None])
def test_what_one_server_could_keep_if_it_were_idle_is_possible(
    pool: Pool, tpot_s: float | None
) -> None:
    slow, fast = pool.known("slow"), pool.known("fast")
    timing = pool.predictor.timing(slow.id)
    timing.decode.step_s *= 50
    fast.decoding = 1_000
    tracked = bound_by(ttft_s=0.1, tpot_s=tpot_s)
    assert pool.is_impossible(tracked, slow)
    assert not pool.is_impossible(tracked, slow, fast)


def test_without_an_objective_nothing_is_impossible(pool: Pool) -> None:
    assert not pool.is_impossible(bound_by(ttft_s=0.001, own=False), pool.known())


# -- prompts too long for a server ------------------------------------------------------------


def test_a_prompt_beyond_twice_the_longest_context_goes_at_once_to_be_refused(pool: Pool) -> None:
    """Its length is an estimate, so that what is a little too long is treated like any other."""
    backend = pool.busy(prefill_tokens=3_000)
    backend.models = {name: m._replace(max_model_len=1_000) for name, m in backend.models.items()}
    assert not pool.opened(bound_by(ttft_s=0.001, prompt_tokens=2_000), backend)
    assert pool.opened(bound_by(ttft_s=0.001, prompt_tokens=2_001), backend)
