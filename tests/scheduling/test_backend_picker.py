from collections import Counter
from math import sqrt
from random import Random

from gateway.scheduling.backend_picker import LeastOutstandingPicker
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.policy import PickerPolicy
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_backend, make_tracked
from tests.scheduling.picker_scenes import forecast_there, loaded


def opened(*backends: BackendState) -> list[OpenServer]:
    """The servers, all with the same forecast."""
    return [OpenServer(backend, forecast_there(backend)) for backend in backends]


def picked(tracked: TrackedRequest, *backends: BackendState, cold_cost: float = 8.0) -> str:
    policy = PickerPolicy(cold_adapter_cost=cold_cost)
    picker = LeastOutstandingPicker(policy=policy, rng=Random(1))
    return picker.pick(tracked, opened(*backends), now=0.0).server.backend.id


BASE_REQUEST = make_tracked()
ADAPTER_REQUEST = make_tracked(target="lora-a")


def test_the_fewest_sequences_win() -> None:
    assert picked(BASE_REQUEST, loaded("a", 3), loaded("b", 1), loaded("c", 2)) == "b"


def test_the_traffic_of_others_counts() -> None:
    assert picked(BASE_REQUEST, loaded("a", 1, external=4.0), loaded("b", 2)) == "b"


def test_equal_servers_are_drawn_uniformly() -> None:
    picker = LeastOutstandingPicker(policy=PickerPolicy(), rng=Random(7))
    backends = [loaded(name, 1) for name in "abc"] + [loaded("busy", 2)]
    servers = opened(*backends)
    draws = Counter(
        picker.pick(BASE_REQUEST, servers, now=0.0).server.backend.id for _ in range(3_000)
    )
    assert set(draws) == {"a", "b", "c"}
    three_sigma = 3 * sqrt(3_000 * (1 / 3) * (2 / 3))
    assert all(abs(count - 1_000) <= three_sigma for count in draws.values())


def test_the_holder_of_the_adapter_wins_over_an_emptier_server() -> None:
    assert picked(ADAPTER_REQUEST, loaded("holder", 7, "lora-a"), loaded("empty", 0)) == "holder"


def test_affinity_ends_where_the_load_of_the_adapter_costs_less() -> None:
    assert picked(ADAPTER_REQUEST, loaded("holder", 9, "lora-a"), loaded("empty", 0)) == "empty"


def test_the_cost_of_a_cold_adapter_is_configurable() -> None:
    holder, empty = loaded("holder", 7, "lora-a"), loaded("empty", 0)
    assert picked(ADAPTER_REQUEST, holder, empty, cold_cost=2.0) == "empty"


def test_of_cold_servers_the_one_with_more_free_slots_wins() -> None:
    assert picked(ADAPTER_REQUEST, loaded("a", 1, "lora-b"), loaded("b", 1)) == "b"


def test_a_request_for_the_base_model_pays_for_no_adapter() -> None:
    assert picked(BASE_REQUEST, loaded("a", 1, "lora-a"), loaded("b", 2)) == "a"


def test_the_choice_shows_what_was_compared() -> None:
    picker = LeastOutstandingPicker(policy=PickerPolicy(), rng=Random(1))
    backends = (loaded("holder", 2, "lora-a"), loaded("cold", 1))
    choice = picker.pick(ADAPTER_REQUEST, opened(*backends), now=0.0)
    assert [(c.backend_id, c.reason) for c in choice.candidates] == [
        ("holder", "adapter resident"),
        ("cold", "adapter to load"),
    ]
    assert choice.candidates[0].cost < choice.candidates[1].cost
    base = picker.pick(BASE_REQUEST, opened(backends[0]), now=0.0)
    assert [c.reason for c in base.candidates] == ["base model"]


def test_a_server_without_adapter_slots_does_not_divide_by_them() -> None:
    backend = make_backend("a", adapters=("lora-a",), max_loras=0)
    assert picked(ADAPTER_REQUEST, backend) == "a"
