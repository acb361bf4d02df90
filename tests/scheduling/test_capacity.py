import pytest

from gateway.scheduling.backend_state import BackendState, Hold
from gateway.scheduling.capacity import Capacity, ClosedReason
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import BackendId, BackendLoad
from gateway.scheduling.policy import CapacityPolicy
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_backend, make_ledger, make_tracked, serving

CAPACITY = Capacity(
    policy=CapacityPolicy(max_requests_per_backend=4, max_engine_waiting=2),
    predictor=LatencyPredictor(prior=StepTimePrior()),
)
ONE_MORE = make_tracked("one-more")


def is_open(backend: BackendState, tracked: TrackedRequest, *, now: float = 0.0) -> bool:
    return bool(CAPACITY.open_among(tracked, [backend], now=now))


def running(backend: BackendState, *requests: TrackedRequest) -> BackendState:
    """The server with these requests in flight."""
    for number, tracked in enumerate(requests):
        backend.in_flight[tracked.request.id] = tracked
        backend.sequences += tracked.request.choices
        backend.kv_reserved_tokens += tracked.prompt_tokens + tracked.expected_output_tokens
        adapter = backend.adapter_of(tracked.target)
        if adapter is not None:
            backend.adapters.acquire(adapter, now=float(number))
    return backend


def some(count: int) -> list[TrackedRequest]:
    return [make_tracked(f"r{number}") for number in range(count)]


def test_an_idle_server_is_open() -> None:
    assert is_open(make_backend(), ONE_MORE)


def test_a_server_is_full_at_its_limit_of_sequences() -> None:
    assert not CAPACITY.is_full(running(make_backend(), *some(3)), now=0.0)
    assert CAPACITY.is_full(running(make_backend(), *some(4)), now=0.0)
    assert not is_open(running(make_backend(), *some(4)), ONE_MORE)


def test_the_traffic_of_others_takes_places() -> None:
    backend = running(make_backend(), *some(2))
    backend.external_running = 2.0
    assert CAPACITY.is_full(backend, now=0.0)


def test_a_trace_of_past_external_traffic_takes_no_place() -> None:
    backend = running(make_backend(), *some(3))
    backend.external_running = 0.01
    assert is_open(backend, ONE_MORE)


def test_all_choices_of_a_request_must_fit() -> None:
    backend = running(make_backend(), *some(2))
    assert is_open(backend, make_tracked(choices=2))
    assert not is_open(backend, make_tracked(choices=3))


def test_more_choices_than_any_server_has_places_run_alone_on_an_idle_one() -> None:
    assert is_open(make_backend(), make_tracked(choices=9))


def test_a_server_whose_own_queue_grows_is_full() -> None:
    assert not CAPACITY.is_full(make_backend(load=BackendLoad(waiting=2)), now=0.0)
    assert CAPACITY.is_full(make_backend(load=BackendLoad(waiting=3)), now=0.0)


def test_requests_that_wait_for_an_adapter_slot_are_no_engine_queue() -> None:
    assert not CAPACITY.is_full(
        make_backend(load=BackendLoad(waiting=9, waiting_deferred=7)), now=0.0
    )


def test_an_adapter_needs_a_slot() -> None:
    backend = running(
        make_backend(adapters=("lora-a", "lora-b"), max_loras=1), make_tracked(target="lora-a")
    )
    assert is_open(backend, make_tracked(target="lora-a"))
    assert not is_open(backend, make_tracked(target="lora-b"))
    assert is_open(backend, ONE_MORE)


def test_the_cache_must_hold_prompts_and_expected_answers() -> None:
    load = BackendLoad(kv_blocks=25, block_tokens=16)  # 400 tokens
    backend = running(make_backend(load=load), make_tracked("r0"), make_tracked("r1"))
    assert is_open(backend, make_tracked(prompt_tokens=60, output_tokens=40))
    assert not is_open(backend, make_tracked(prompt_tokens=60, output_tokens=41))


def test_a_request_larger_than_the_cache_runs_alone_on_an_idle_server() -> None:
    backend = make_backend(load=BackendLoad(kv_blocks=1, block_tokens=16))
    assert is_open(backend, make_tracked(prompt_tokens=10_000))


def test_an_unknown_cache_size_closes_no_server() -> None:
    assert is_open(running(make_backend(), *some(3)), make_tracked(prompt_tokens=10**6))


def test_two_steps_of_prefill_ahead_are_enough_for_an_engine() -> None:
    backend = make_backend()
    backend.pending_prefill_tokens = 2 * 2048 - 1
    assert not CAPACITY.is_full(backend, now=0.0)
    backend.pending_prefill_tokens += 1
    assert CAPACITY.is_full(backend, now=0.0)


def test_an_old_report_of_the_engines_queue_closes_nothing() -> None:
    backend = make_backend(load=BackendLoad(waiting=3))
    assert CAPACITY.is_full(backend, now=1.0)
    assert not CAPACITY.is_full(backend, now=1.001)


def test_a_prompt_longer_than_the_cache_goes_at_once_to_be_refused() -> None:
    load = BackendLoad(kv_blocks=25, block_tokens=16)  # 400 tokens
    backend = running(make_backend(load=load), *some(2))
    late = make_tracked(prompt_tokens=401)
    late.ttft_bound_s = late.tpot_bound_s = 0.001
    assert is_open(backend, late)
    late.prompt_tokens = 400
    assert not is_open(backend, late)


def test_a_full_server_is_closed_for_being_full() -> None:
    backend = running(make_backend(), *some(4))
    assert CAPACITY.why_closed(ONE_MORE, backend, now=0.0) is ClosedReason.FULL


def test_an_ejected_server_is_closed_for_that() -> None:
    backend = running(make_backend(), *some(4))
    backend.ejected = True
    assert CAPACITY.why_closed(ONE_MORE, backend, now=0.0) is ClosedReason.EJECTED


def test_a_server_without_a_slot_is_closed_for_its_slots() -> None:
    backend = make_backend(adapters=("x", "y"), max_loras=1)
    running(backend, make_tracked("r1", target="x"))
    wants_y = make_tracked("r2", target="y")
    assert CAPACITY.why_closed(wants_y, backend, now=0.0) is ClosedReason.ADAPTER_SLOT


def test_a_server_whose_slot_is_kept_is_closed_for_its_slots() -> None:
    backend = make_backend(adapters=("x", "y"), max_loras=2)
    running(backend, make_tracked("r1", target="x"))
    backend.hold = Hold(make_tracked("other", target="y"), "x")
    wants_y = make_tracked("r2", target="y")
    assert CAPACITY.why_closed(wants_y, backend, now=0.0) is ClosedReason.ADAPTER_SLOT


def test_a_server_without_blocks_is_closed_for_want_of_room() -> None:
    backend = running(make_backend(load=BackendLoad(kv_blocks=20, block_tokens=10)), *some(1))
    assert CAPACITY.why_closed(ONE_MORE, backend, now=0.0) is ClosedReason.NO_ROOM


def test_what_would_fit_was_closed_by_a_forecast_or_by_turn() -> None:
    backend = running(make_backend(), *some(1))
    assert CAPACITY.why_closed(ONE_MORE, backend, now=0.0) is ClosedReason.FORECAST_OR_TURN


def test_what_prompts_have_in_common_takes_kv_blocks_once() -> None:
    ledger = make_ledger()
    backend = ledger.join(BackendId("a"), serving())
    ledger.report(backend, BackendLoad(kv_blocks=100, block_tokens=10), taken_at=0.0)
    system = tuple(range(8))
    ledger.reserve(backend, make_tracked("r1", prompt_tokens=800, prefix_blocks=system), now=0.0)
    again = make_tracked("again", prompt_tokens=800, prefix_blocks=system)
    assert not is_open(backend, make_tracked("another", prompt_tokens=800))
    assert is_open(backend, again)
    ledger.reserve(backend, again, now=0.0)
    assert CAPACITY.saturation(backend) == 0.9
    assert is_open(backend, make_tracked("short", prompt_tokens=50))
    assert not is_open(backend, make_tracked("longer", prompt_tokens=60))


def test_an_idle_server_is_not_saturated() -> None:
    assert CAPACITY.saturation(make_backend()) == 0.0


def test_the_scarcest_thing_tells_the_saturation() -> None:
    backend = running(make_backend(load=BackendLoad(kv_blocks=100, block_tokens=10)), *some(1))
    assert CAPACITY.saturation(backend) == 0.25  # places: 1 of 4; blocks: 150 of 1,000 tokens
    backend.kv_reserved_tokens = 600
    assert CAPACITY.saturation(backend) == 0.6
    backend.pending_prefill_tokens = 4_096
    assert CAPACITY.saturation(backend) == 1.0


def test_a_pace_at_the_strictest_bound_saturates() -> None:
    backend = running(make_backend(), *some(1))
    backend.strictest_tpot_s = 0.02
    backend.glance = backend.glance._replace(tpot_s=0.88 * 0.02)
    assert CAPACITY.saturation(backend) == pytest.approx(1.0)


def test_the_pace_that_forecasts_start_from_saturates() -> None:
    backend = running(make_backend(), *some(1))
    CAPACITY.open_among(ONE_MORE, [backend], now=0.0)
    backend.strictest_tpot_s = 0.012 / 0.88  # what a step takes before anything is learned
    assert CAPACITY.saturation(backend) == pytest.approx(1.0, rel=0.1)
