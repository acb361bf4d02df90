from gateway.scheduling.adapter_holders import AdapterHolders
from gateway.scheduling.adapter_residency import AdapterResidency
from gateway.scheduling.model import BackendId

A, B = BackendId("a"), BackendId("b")


def sent(holders: AdapterHolders, backend_id: BackendId, adapter: str) -> AdapterResidency:
    residency = AdapterResidency(max_loras=1)
    residency.acquire(adapter, now=0.0)
    holders.note(adapter, backend_id, residency)
    return residency


def test_an_adapter_that_was_never_sent_is_nowhere() -> None:
    assert AdapterHolders().of("lora-a") == []


def test_an_adapter_is_held_where_it_was_sent_also_when_idle() -> None:
    holders = AdapterHolders()
    sent(holders, B, "lora-a")
    idle = sent(holders, A, "lora-a")
    sent(holders, A, "lora-b")
    idle.release("lora-a", now=1.0)
    assert holders.of("lora-a") == [B, A]


def test_a_server_that_is_forgotten_holds_nothing() -> None:
    holders = AdapterHolders()
    for adapter in ("lora-a", "lora-b"):
        sent(holders, A, adapter)
        sent(holders, B, adapter)
    holders.forget(A)
    assert holders.of("lora-a") == holders.of("lora-b") == [B]


def test_a_server_that_dropped_the_adapter_is_forgotten() -> None:
    holders = AdapterHolders()
    residency = sent(holders, A, "lora-a")
    residency.release("lora-a", now=1.0)
    residency.acquire("lora-b", now=2.0)
    assert holders.of("lora-a") == []
    residency.release("lora-b", now=3.0)
    residency.acquire("lora-a", now=4.0)
    assert holders.of("lora-a") == [], "it counts again once it is noted again"
