from gateway.scheduling.model import CRITICAL, BackendLoad
from gateway.scheduling.snapshot import QueueSnapshot
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler


def test_a_snapshot_shows_servers_queues_and_totals() -> None:
    checked = CheckedScheduler(make_policy(make_service("chat", priority=CRITICAL), slots=1))
    checked.join("a", "lora-a")
    checked.arrive(make_request("r1", model="lora-a", prompt_tokens=60, max_tokens=40))
    checked.arrive(make_request("r2", service="chat", body_bytes=700))
    checked.report("a", BackendLoad(running=1, waiting=2, kv_usage=0.25, max_loras=4))
    checked.now += 3.0
    snapshot = checked.scheduler.snapshot(now=checked.now)
    assert (snapshot.pool, snapshot.draining, snapshot.ignored_events) == ("pool", False, 0)
    assert (snapshot.tracked_requests, snapshot.queued_requests) == (2, 1)
    assert snapshot.queued_bytes == 700
    assert snapshot.queues == (QueueSnapshot(priority=CRITICAL, service="chat", requests=1),)
    (backend,) = snapshot.backends
    assert (backend.usable, backend.draining, backend.full) == (True, False, True)
    assert (backend.requests, backend.sequences, backend.decoding) == (1, 1, 0)
    assert (backend.pending_prefill_tokens, backend.kv_reserved_tokens) == (60, 100)
    assert (backend.active_adapters, backend.resident_adapters) == ({"lora-a": 1}, ("lora-a",))
    assert (backend.max_loras, backend.reported_running, backend.reported_waiting) == (4, 1, 2)
    assert (backend.reported_kv_usage, backend.report_age_s) == (0.25, 3.0)


def test_a_server_without_reports_has_no_age() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    (backend,) = checked.scheduler.snapshot(now=checked.now).backends
    assert backend.report_age_s is None
    assert backend.reported_running is None
    assert not backend.full


def test_the_states_of_servers_and_gateway_show() -> None:
    checked = CheckedScheduler(make_policy())
    checked.join("a")
    checked.join("b")
    checked.drain("a")
    checked.leave("b")
    checked.start_shutdown()
    snapshot = checked.scheduler.snapshot(now=checked.now)
    assert [(b.usable, b.draining) for b in snapshot.backends] == [(True, True), (False, False)]
    assert snapshot.draining
