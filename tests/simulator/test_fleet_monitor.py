import itertools

import pytest

from gateway.scheduling.events import BackendLoadReported, ResponseProgressed
from gateway.simulator.fleet_model import FleetOptions
from tests.simulator.fleet_rig import Recorder, planned, run_fleet


def reports(policy: Recorder, server: str) -> list[tuple[float, BackendLoadReported]]:
    return [
        (at, e)
        for at, e in policy.of(BackendLoadReported)
        if isinstance(e, BackendLoadReported) and e.backend_id == server
    ]


def test_servers_are_polled_with_interval_jitter_and_age() -> None:
    policy = Recorder()
    options = FleetOptions(poll_interval_s=0.2, poll_jitter=0.1, poll_latency_s=0.03)
    run_fleet([policy], [planned("r", 20.0, output=2)], servers=2, options=options)
    seen = reports(policy, "s1")[1:]
    assert all(at - e.taken_at == pytest.approx(0.03) for at, e in seen)
    gaps = [b[1].taken_at - a[1].taken_at for a, b in itertools.pairwise(seen)]
    assert len(gaps) > 80
    assert 0.18 <= min(gaps) < 0.19
    assert 0.21 < max(gaps) <= 0.22
    phases = {reports(policy, server)[1][1].taken_at for server in ("s0", "s1")}
    assert len(phases) == 2


def test_each_gateway_polls_for_itself() -> None:
    policies = [Recorder(), Recorder()]
    run_fleet(policies, [planned("r", 5.0, output=2)])
    times = [[at for at, _ in reports(policy, "s0")][1:] for policy in policies]
    assert len(times[0]) == pytest.approx(50, abs=5)
    assert not set(times[0]) & set(times[1])


def test_progress_comes_at_most_four_times_a_second_with_tokens_so_far() -> None:
    policy = Recorder()
    requests = [planned("a", 0.0, output=300), planned("b", 0.0, output=300, streamed=False)]
    run_fleet([policy], requests)
    progress = [
        (at, e) for at, e in policy.of(ResponseProgressed) if isinstance(e, ResponseProgressed)
    ]
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(progress)]
    assert gaps
    assert min(gaps) >= 0.25 - 1e-9
    tokens = [dict(e.progress) for _, e in progress]
    assert all(set(each) == {"a"} for each in tokens)
    counts = [next(iter(each.values())) for each in tokens]
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1] <= 300
    assert all(0.0 <= at - e.last_chunk_at < 0.02 for at, e in progress)


def test_progress_can_be_left_out() -> None:
    policy = Recorder()
    run_fleet(
        [policy], [planned("a", 0.0, output=300)], options=FleetOptions(progress_interval_s=None)
    )
    assert policy.of(ResponseProgressed) == []


def test_progress_goes_to_the_gateway_whose_request_it_is() -> None:
    policies = [Recorder(), Recorder()]
    run_fleet(policies, [planned(f"r{n}", n * 0.01, output=100) for n in range(20)])
    for policy in policies:
        own = {e.request.id for _, e in policy.heard if hasattr(e, "request")}
        told = {
            request_id
            for _, e in policy.of(ResponseProgressed)
            if isinstance(e, ResponseProgressed)
            for request_id, _ in e.progress
        }
        assert told
        assert told <= own
