"""LoRA adapters on servers whose metrics tell nothing of them: all is known by what was sent there.

CheckedScheduler makes sure after each event of these tests too that the contract holds.
"""

from gateway.scheduling.model import BackendLoad
from gateway.wire.engine_metrics import scan_metrics
from tests.builders import make_policy, make_request
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.scheduler_scenes import dispatched

OLD_PAGE = b"""\
vllm:num_requests_running{model_name="base"} 1.0
vllm:num_requests_waiting{model_name="base"} 0.0
vllm:gpu_cache_usage_perc{model_name="base"} 0.1
"""


def pool(*servers: str) -> CheckedScheduler:
    """Servers with two slots, as configured, for three adapters."""
    checked = CheckedScheduler(make_policy(max_loras=2))
    for server in servers:
        checked.join(server, "lora-a", "lora-b", "lora-c")
    return checked


def old_report() -> BackendLoad:
    load = scan_metrics(OLD_PAGE)
    assert (load.active_adapters, load.max_loras) == (None, None)
    return load


def test_an_idle_adapter_is_used_where_it_is() -> None:
    checked = pool("a", "b")
    ((_, home),) = dispatched(checked.arrive(make_request("first", model="lora-a")))
    checked.finish("first")
    for number in range(5):
        for server in ("a", "b"):
            checked.report(server, old_report())
        checked.arrive(make_request(f"other{number}", model="lora-b"))
        again = make_request(f"again{number}", model="lora-a")
        assert dispatched(checked.arrive(again)) == [(f"again{number}", home)]
        checked.finish(f"again{number}")
        checked.finish(f"other{number}")


def test_a_third_adapter_waits_for_one_of_two_slots() -> None:
    checked = pool("a")
    checked.arrive(make_request("r1", model="lora-a"))
    checked.arrive(make_request("r2", model="lora-b"))
    checked.report("a", old_report())
    assert checked.arrive(make_request("r3", model="lora-c")) == []
    assert dispatched(checked.arrive(make_request("r4", model="lora-a"))) == [("r4", "a")]
    assert dispatched(checked.finish("r2")) == [("r3", "a")]


def test_the_least_recent_idle_adapter_gives_up_its_slot() -> None:
    checked = pool("a")
    for number, adapter in enumerate(("lora-a", "lora-b", "lora-c")):
        checked.arrive(make_request(f"r{number}", model=adapter))
        checked.finish(f"r{number}")
        checked.report("a", old_report())
    assert checked.snapshot().backends[0].resident_adapters == ("lora-b", "lora-c")
