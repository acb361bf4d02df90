"""Which adapter slot is kept for a request that was overtaken too often, and from whom."""

from gateway.scheduling.backend_state import BackendState, Hold
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.model import CRITICAL, BackendId
from gateway.scheduling.policy import CapacityPolicy
from gateway.scheduling.step_time import StepTimePrior
from tests.builders import BASE, make_ledger, make_service, make_tracked, serving

CAPACITY = Capacity(policy=CapacityPolicy(), predictor=LatencyPredictor(prior=StepTimePrior()))


def is_open(backend: BackendState, target: str, *, request_id: str = "r") -> bool:
    return bool(CAPACITY.open_among(make_tracked(request_id, target=target), [backend], now=0.0))


class AdapterPool:
    """Servers of two slots each, with requests in flight for adapters."""

    def __init__(self, **in_flight: tuple[str, ...]) -> None:
        ledger = make_ledger(max_loras=2)
        self.servers = []
        for name, adapters in in_flight.items():
            backend = ledger.join(BackendId(name), serving("lora-a", "lora-b", "lora-c", "lora-d"))
            for number, adapter in enumerate(adapters):
                ledger.reserve(backend, make_tracked(f"{name}{number}", target=adapter), now=0.0)
            self.servers.append(backend)

    def hold_for(self, request_id: str, adapter: str) -> tuple[str, str] | None:
        """(server, adapter that drains) of a hold that was placed."""
        held = CAPACITY.place_hold(make_tracked(request_id, target=adapter), self.servers)
        if held is None:
            return None
        assert held.hold is not None
        assert held.hold.holder.request.id == request_id
        return held.id, held.hold.adapter


FULL = ("lora-a", "lora-a", "lora-b", "lora-b")


def test_the_least_used_adapter_of_the_pool_is_let_drain() -> None:
    pool = AdapterPool(s1=FULL, s2=("lora-a", "lora-a", "lora-b"), s3=FULL)
    assert pool.hold_for("r", "lora-c") == ("s2", "lora-b")


def test_no_slot_is_kept_where_one_is_free_or_the_adapter_is_active() -> None:
    assert AdapterPool(s1=FULL, s2=("lora-a",)).hold_for("r", "lora-c") is None
    assert AdapterPool(s1=FULL, s2=("lora-a", "lora-c")).hold_for("r", "lora-c") is None


def test_no_slot_is_kept_for_a_base_model() -> None:
    assert AdapterPool(s1=FULL, s2=FULL).hold_for("r", BASE) is None


def test_at_most_half_of_the_servers_keep_a_slot() -> None:
    pool = AdapterPool(s1=FULL, s2=FULL, s3=FULL, s4=FULL)
    assert pool.hold_for("r1", "lora-c") == ("s1", "lora-a")
    assert pool.hold_for("r2", "lora-d") == ("s2", "lora-a")
    assert pool.hold_for("r3", "lora-c") is None


def test_without_servers_nothing_is_kept() -> None:
    assert AdapterPool().hold_for("r", "lora-c") is None


def test_a_kept_slot_is_closed_to_what_would_take_it_and_open_to_the_rest() -> None:
    pool = AdapterPool(s1=FULL[1:])  # one lora-a, two lora-b
    (backend,) = pool.servers
    CAPACITY.place_hold(make_tracked("holder", target="lora-c"), pool.servers)
    assert backend.hold is not None
    assert backend.hold.adapter == "lora-a"
    assert not is_open(backend, "lora-a")
    assert is_open(backend, "lora-b")
    assert is_open(backend, BASE)


def test_a_slot_that_has_become_free_is_open_to_its_holder_only() -> None:
    (backend,) = AdapterPool(s1=("lora-b", "lora-b")).servers
    holder = make_tracked("holder", target="lora-c")
    backend.hold = Hold(holder, "lora-a")
    assert not is_open(backend, "lora-d")
    assert CAPACITY.open_among(holder, [backend], now=0.0)


def test_a_kept_slot_is_open_to_more_entitled_requests() -> None:
    (backend,) = AdapterPool(s1=("lora-b", "lora-b")).servers
    backend.hold = Hold(make_tracked("holder", target="lora-c"), "lora-a")
    critical = make_tracked(service=make_service(priority=CRITICAL), target="lora-d")
    assert CAPACITY.open_among(critical, [backend], now=0.0)
