"""Which server gets a request: adapters, affinity, spread, an empty pool (scenarios 3 to 8)."""

from collections import Counter
from math import sqrt
from random import Random

from gateway.scheduling.decisions import Dispatch, RefusalReason
from gateway.scheduling.model import BackendLoad
from gateway.scheduling.policy import QueuePolicy
from tests.builders import make_policy, make_request
from tests.scheduling.checked_scheduler import CheckedScheduler

ADAPTERS = tuple(f"lora-{number}" for number in range(20))


def lora_pool(*backends: str, max_loras: int = 1, slots: int = 256) -> CheckedScheduler:
    checked = CheckedScheduler(make_policy(max_loras=max_loras, slots=slots))
    for backend in backends:
        checked.join(backend, *ADAPTERS)
    return checked


def place(checked: CheckedScheduler, request_id: str, model: str = "base") -> str:
    """Send a request that is dispatched at once; return the server."""
    (dispatch,) = checked.arrive(make_request(request_id, model=model))
    assert isinstance(dispatch, Dispatch)
    return dispatch.backend_id


def test_a_new_adapter_never_goes_to_the_server_whose_slots_are_all_in_use() -> None:
    """Scenario 3: also where that server is the emptiest."""
    checked = lora_pool("full", "roomy", max_loras=1)
    checked.report("full", BackendLoad(active_adapters=("lora-9",)))
    for number in range(40):  # load the roomy one far beyond the other
        place(checked, f"busy{number}", "lora-1")
    assert checked.backend_of("busy0") == "roomy"
    assert checked.arrive(make_request("new", model="lora-2")) == []
    checked.join("third", *ADAPTERS)
    assert checked.backend_of("new") == "third"


def test_the_holder_of_an_adapter_wins_over_an_empty_server() -> None:
    """Scenario 4: higher use of the cache does not matter while both would do."""
    checked = lora_pool("a", "b", max_loras=4)
    holder = place(checked, "r1", "lora-1")
    for backend in ("a", "b"):
        kv_usage = 0.6 if backend == holder else 0.0
        checked.report(backend, BackendLoad(kv_usage=kv_usage, kv_blocks=9_999, block_tokens=16))
    assert [place(checked, f"next{number}", "lora-1") for number in range(5)] == [holder] * 5


def test_an_idle_adapters_next_request_goes_to_the_same_server() -> None:
    """Scenario 5."""
    checked = lora_pool("a", "b", "c", max_loras=2)
    holder = place(checked, "r0", "lora-1")
    for number in range(10):
        checked.finish(f"r{number}")
        checked.now += 5.0
        assert place(checked, f"r{number + 1}", "lora-1") == holder


def test_equal_servers_get_equal_shares_of_base_model_requests() -> None:
    """Scenario 7: an idle adapter somewhere is neither a penalty nor an attraction."""
    checked = lora_pool("a", "b", "c", "d", max_loras=2)
    place(checked, "lora", "lora-1")
    checked.finish("lora")
    requests, picks = 1_000, Counter[str]()
    for number in range(requests):
        picks[place(checked, f"r{number}")] += 1
        checked.finish(f"r{number}")
    three_sigma = 3 * sqrt(requests * 0.25 * 0.75)
    assert sorted(picks) == ["a", "b", "c", "d"]
    assert all(abs(count - requests / 4) <= three_sigma for count in picks.values())


def test_an_empty_pool_makes_requests_wait_until_the_timeout() -> None:
    """Scenario 8."""
    checked = CheckedScheduler(make_policy(queue=QueuePolicy(timeout_s=10.0)))
    assert checked.arrive(make_request("r1")) == []
    started_at = checked.now
    (eviction,) = checked.pass_deadline()
    assert not isinstance(eviction, Dispatch)
    assert eviction.reason is RefusalReason.NO_BACKEND
    assert checked.now == started_at + 10.0


def test_a_server_that_joins_an_empty_pool_gets_who_waits_with_a_fresh_dispatch() -> None:
    """Scenario 8."""
    checked = CheckedScheduler(make_policy())
    checked.arrive(make_request("r1"))
    checked.now += 1.0
    (dispatch,) = checked.join("a")
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.request_id, dispatch.backend_id, dispatch.attempt) == ("r1", "a", 1)


def test_twenty_adapters_never_exceed_the_slots_of_three_servers() -> None:
    """200 requests, 4 slots: CheckedScheduler counts distinct adapters at every dispatch."""
    checked = lora_pool("a", "b", "c", max_loras=4, slots=32)
    rng = Random(5)
    most = Counter[str]()
    for number in range(200):
        adapter = rng.choice(ADAPTERS)
        checked.now += 0.01
        checked.arrive(make_request(f"r{number}", model=adapter))
        for backend in checked.scheduler.snapshot(now=checked.now).backends:
            distinct = len(backend.active_adapters)
            most[backend.backend_id] = max(most[backend.backend_id], distinct)
        if number % 3 == 2:
            checked.finish(rng.choice(checked.ids_in("in flight")))
    while checked.ids_in("queued", "in flight"):
        checked.finish(checked.ids_in("in flight")[0])
    assert most == {"a": 4, "b": 4, "c": 4}
