from collections import Counter
from math import sqrt
from random import Random

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.latency_picker import LatencyPicker
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest
from tests.scheduling.picker_scenes import forecast_there, loaded, objective_request


def server(
    name: str,
    *,
    ttft_s: float = 0.1,
    tpot_s: float = 0.02,
    own_prefill_s: float = 0.0,
    own_step_s: float = 0.0,
    backend: BackendState | None = None,
) -> OpenServer:
    """An open server with such a forecast, its 90th percentiles at double."""
    backend = loaded(name, 1) if backend is None else backend
    prediction = forecast_there(backend, ttft_s=ttft_s, tpot_s=tpot_s)
    prediction.own_prefill_s, prediction.own_step_s = own_prefill_s, own_step_s
    return OpenServer(backend, prediction)


def chosen(tracked: TrackedRequest, *servers: OpenServer, now: float = 0.0) -> str:
    """The only server that is ever drawn."""
    names = {
        LatencyPicker(policy=PickerPolicy(), rng=Random(seed))
        .pick(tracked, servers, now=now)
        .server.backend.id
        for seed in range(10)
    }
    (name,) = names
    return name


def strict_neighbours(name: str, *, streams: int, tpot_s: float) -> BackendState:
    """A server on which streams run that need this TPOT."""
    backend = loaded(name, streams)
    backend.decoding = streams
    backend.tpot_bounds[tpot_s] = streams
    backend.strictest_tpot_s = tpot_s
    return backend


def test_the_most_headroom_wins() -> None:
    tracked = objective_request()
    assert chosen(tracked, server("a", ttft_s=0.3), server("b", ttft_s=0.1)) == "b"
    assert chosen(tracked, server("a", tpot_s=0.04), server("b", tpot_s=0.02)) == "b"


def test_where_nothing_will_miss_the_headroom_still_decides() -> None:
    servers = server("a", ttft_s=0.02, tpot_s=0.002), server("b", ttft_s=0.02, tpot_s=0.0005)
    assert chosen(objective_request(), *servers) == "b"


def test_two_bounds_that_may_be_missed_are_worse_than_one() -> None:
    servers = server("both", ttft_s=0.7, tpot_s=0.034), server("one", ttft_s=0.72, tpot_s=0.005)
    assert chosen(objective_request(), *servers) == "one"


def test_the_bound_that_is_nearer_decides() -> None:
    soon_but_slow, late_but_fast = (
        server("slow", ttft_s=0.05, tpot_s=0.045),
        server("fast", ttft_s=0.3, tpot_s=0.01),
    )
    assert chosen(objective_request(), soon_but_slow, late_but_fast) == "fast"
    assert chosen(objective_request(ttft_s=0.31), soon_but_slow, late_but_fast) == "slow"


def test_time_spent_waiting_leaves_less_for_the_first_token() -> None:
    servers = server("soon", ttft_s=0.2, tpot_s=0.045), server("fast", ttft_s=0.4, tpot_s=0.02)
    assert chosen(objective_request(), *servers) == "fast"
    assert chosen(objective_request(), *servers, now=0.6) == "soon"


def test_a_used_up_budget_still_gets_the_soonest_server() -> None:
    servers = server("late", ttft_s=0.4), server("soon", ttft_s=0.2)
    assert chosen(objective_request(), *servers, now=9.0) == "soon"


def test_a_request_without_a_bound_on_its_pace_goes_by_the_first_token() -> None:
    servers = server("soon", ttft_s=0.1, tpot_s=0.09), server("fast", ttft_s=0.5, tpot_s=0.01)
    assert chosen(objective_request(tpot_s=None), *servers) == "soon"


def test_a_server_on_which_others_would_miss_is_left_alone() -> None:
    crowd = server(
        "crowd",
        tpot_s=0.02,
        own_step_s=0.003,
        backend=strict_neighbours("crowd", streams=20, tpot_s=0.02),
    )
    assert chosen(objective_request(), crowd, server("slower", tpot_s=0.03)) == "slower"


def test_others_with_room_to_spare_are_no_obstacle() -> None:
    crowd = server(
        "crowd",
        tpot_s=0.02,
        own_step_s=0.003,
        backend=strict_neighbours("crowd", streams=20, tpot_s=0.5),
    )
    assert chosen(objective_request(), crowd, server("slower", tpot_s=0.03)) == "crowd"


def test_a_long_prefill_disturbs_those_that_run_there() -> None:
    backends = [strict_neighbours(name, streams=20, tpot_s=0.025) for name in ("cold", "cached")]
    cold = server("cold", own_prefill_s=0.5, backend=backends[0])
    cached = server("cached", own_prefill_s=0.05, backend=backends[1])
    assert chosen(objective_request(), cold, cached) == "cached"


def test_a_prefill_stretches_the_steps_of_those_that_run_there() -> None:
    crowd = server(
        "crowd",
        tpot_s=0.02,
        own_prefill_s=0.3,
        backend=strict_neighbours("crowd", streams=20, tpot_s=0.02),
    )
    slower = server("slower", tpot_s=0.03, own_prefill_s=0.3)
    assert chosen(objective_request(), crowd, slower) == "slower"


def test_where_nobody_runs_a_cached_prefix_still_saves_the_pool_work() -> None:
    servers = server("cold", own_prefill_s=0.2), server("cached", own_prefill_s=0.01)
    assert chosen(objective_request(), *servers) == "cached"


def copies(*, sharing: int = 0) -> tuple[TrackedRequest, OpenServer, OpenServer]:
    """A request, its slow holder that saves .3 s of prefill, and a fast server; some share it."""
    tracked = objective_request(prefix_blocks=tuple(range(64)))
    holder = server("holder", tpot_s=0.05, own_prefill_s=0.01)
    for number in range(sharing):
        question = tuple(range(100 * number + 100, 100 * number + 110))
        holder.backend.shared.take(None, (*range(64), *question), 1.0)
    copy = server("copy", ttft_s=0.4, own_prefill_s=0.3)
    holder.prediction.uncached_tokens, copy.prediction.uncached_tokens = 3, 90
    return tracked, holder, copy


def test_a_prompt_stays_with_a_slower_holder_rather_than_be_copied() -> None:
    tracked, holder, copy = copies()
    assert chosen(tracked, holder, copy) == "holder"
    assert chosen(tracked, copy, holder) == "holder"


def test_a_prompt_that_many_share_is_copied_to_a_faster_server() -> None:
    assert chosen(*copies(sharing=20)) == "copy"


def test_what_no_server_holds_goes_where_the_headroom_is() -> None:
    tracked = objective_request(prefix_blocks=tuple(range(64)))
    slower = server("slower", tpot_s=0.05, own_prefill_s=0.3)
    assert chosen(tracked, slower, server("faster", own_prefill_s=0.3)) == "faster"


def test_the_adapter_goes_where_it_is_active_already() -> None:
    holder = server("holder", ttft_s=0.2, backend=loaded("holder", 5, "lora-a"))
    other = server("other", backend=loaded("other", 1, "lora-b"))
    assert chosen(objective_request(target="lora-a"), holder, other) == "holder"
    assert chosen(objective_request(), holder, other) == "other"


def test_the_adapter_goes_where_most_of_its_requests_are() -> None:
    few, many = loaded("few", 5, "lora-a"), loaded("many", 5, *["lora-a"] * 5)
    servers = server("few", backend=few), server("many", backend=many)
    assert chosen(objective_request(target="lora-a"), *servers) == "many"


def test_an_adapter_in_memory_saves_its_load() -> None:
    idle = loaded("idle", 0, "lora-a")
    idle.adapters.release("lora-a", now=1.0)
    servers = server("idle", backend=idle), server("cold", backend=loaded("cold", 0))
    assert chosen(objective_request(target="lora-a"), *servers) == "idle"


def test_while_slots_are_plenty_an_emptier_server_may_take_one() -> None:
    holder = loaded("holder", 5, "lora-a")
    holder.adapters.report(("lora-a",), max_loras=1_000, taken_at=0.0)
    servers = (
        server("holder", tpot_s=0.048, backend=holder),
        server("empty", backend=loaded("empty", 0)),
    )
    assert chosen(objective_request(target="lora-a"), *servers) == "empty"


def test_where_forecasts_hardly_differ_the_least_outstanding_gets_a_base_model() -> None:
    servers = (
        server("many", backend=loaded("many", 9)),
        server("few", ttft_s=0.11, tpot_s=0.0201, backend=loaded("few", 1)),
    )
    assert chosen(objective_request(), *servers) == "few"
    others = server("others", backend=loaded("others", 1, external=9.0))
    assert chosen(objective_request(), others, servers[1]) == "few"


def test_what_is_in_flight_moves_no_adapter() -> None:
    many, few = loaded("many", 60), loaded("few", 1)
    many.adapters.acquire("lora-a", now=0.0)
    few.adapters.acquire("lora-a", now=0.0)
    servers = server("many", tpot_s=0.02, backend=many), server("few", tpot_s=0.0207, backend=few)
    assert chosen(objective_request(target="lora-a"), *servers) == "many"


def test_near_ties_are_drawn_from_the_seed() -> None:
    servers = [server(name, ttft_s=0.1) for name in "abc"] + [server("busy", ttft_s=0.4)]

    def draws(seed: int) -> list[str]:
        picker = LatencyPicker(policy=PickerPolicy(), rng=Random(seed))
        tracked = objective_request()
        return [picker.pick(tracked, servers, now=0.0).server.backend.id for _ in range(900)]

    counts = Counter(draws(1))
    assert set(counts) == {"a", "b", "c"}
    assert all(abs(count - 300) <= 3 * sqrt(900 * (1 / 3) * (2 / 3)) for count in counts.values())
    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_draw_of_latency_shows_what_was_compared() -> None:
    picker = LatencyPicker(policy=PickerPolicy(), rng=Random(1))
    servers = [
        server("holder", backend=loaded("holder", 1, "lora-a")),
        server("cold", ttft_s=0.3, backend=loaded("cold", 1)),
    ]
    tracked = objective_request(target="lora-a")
    choice = picker.pick(tracked, servers, now=0.0)
    assert [(c.backend_id, c.ttft_s, c.reason) for c in choice.candidates] == [
        ("holder", 0.1, "adapter resident"),
        ("cold", 0.3, "adapter to load"),
    ]
    (base,) = picker.pick(objective_request(), servers[:1], now=0.0).candidates
    assert base.reason == "base model"


def doubted(name: str, sequences: int, *adapters: str, trust: float, ttft_s: float) -> OpenServer:
    """A server with so much in flight, whose forecasts deserve so much trust."""
    backend = loaded(name, sequences, *adapters)
    backend.outlook = backend.outlook._replace(trust=trust)
    return OpenServer(backend, forecast_there(backend, ttft_s=ttft_s))


def test_forecasts_that_nobody_trusts_give_way_to_the_least_outstanding() -> None:
    def choice(trust: float) -> str:
        return chosen(
            objective_request(),
            doubted("promising", 9, trust=trust, ttft_s=0.1),
            doubted("idle", 1, trust=trust, ttft_s=0.6),
        )

    assert [choice(trust) for trust in (0.0, 0.2, 0.8, 1.0)] == [
        "idle",
        "idle",
        "promising",
        "promising",
    ]


def test_one_server_in_doubt_does_not_change_how_a_pool_is_used() -> None:
    known = [doubted(f"busy{n}", 9, trust=1.0, ttft_s=0.1) for n in range(7)]
    new = doubted("new", 1, trust=0.0, ttft_s=0.6)
    picker = LatencyPicker(policy=PickerPolicy(), rng=Random(1))
    names = {picker.pick(objective_request(), [*known, new], now=0.0).server.backend.id}
    assert "new" not in names


def test_without_trust_the_holder_of_the_adapter_is_preferred_until_it_has_much_more() -> None:
    def choice(more: int) -> str:
        return chosen(
            objective_request(target="lora-a"),
            doubted("holder", 4 + more, "lora-a", trust=0.0, ttft_s=0.5),
            doubted("cold", 4, trust=0.0, ttft_s=0.1),
        )

    assert (choice(7), choice(9)) == ("holder", "cold")
