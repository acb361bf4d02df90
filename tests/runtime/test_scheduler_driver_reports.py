import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from gateway.runtime.open_streams import PROGRESS_INTERVAL_S
from gateway.runtime.scheduler_driver import Lease, NotAdmitted
from gateway.scheduling.decisions import Decision, Dispatch, Evict
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    FailureKind,
    FirstTokenReceived,
    RequestArrived,
    ResponseFinished,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    RequestId,
    TokenUsage,
)
from tests.builders import serving
from tests.runtime.driver_rig import (
    QUEUE_TIMEOUT_S,
    A,
    B,
    Sightings,
    driver_of,
    request,
)

# -- progress ---------------------------------------------------------------------------------


async def stream(lease: Lease, *, events_per_s: int, seconds: float) -> None:
    """Tell the progress of a stream as the relay does, once per chunk."""
    loop = asyncio.get_running_loop()
    lease.first_token()
    for number in range(1, int(events_per_s * seconds) + 1):
        lease.progressed(number, now=loop.time())
        await asyncio.sleep(1.0 / events_per_s)


async def test_progress_is_reported_at_most_four_times_a_second() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        await stream(lease, events_per_s=50, seconds=10.0)
    reported = sightings.times(ResponseProgressed)
    gaps = [after - before for before, after in pairwise(reported)]
    assert len(reported) in {39, 40}
    assert min(gaps) == pytest.approx(PROGRESS_INTERVAL_S)


async def test_a_report_names_every_stream_of_its_server_and_its_newest_chunk() -> None:
    sightings = Sightings()
    driver = driver_of(A, slots=3, observers=[sightings])
    now = asyncio.get_running_loop().time()
    async with (
        driver.lease(request("x")) as x,
        driver.lease(request("y")) as y,
        driver.lease(request("silent")),
    ):
        x.progressed(3, now=now + 0.1)
        y.progressed(7, now=now + 0.2)
        await asyncio.sleep(PROGRESS_INTERVAL_S * 1.5)
    assert sightings.events(ResponseProgressed) == [
        ResponseProgressed(A, ((RequestId("x"), 3), (RequestId("y"), 7)), now + 0.2)
    ]


async def test_a_retried_request_does_not_carry_its_old_progress_to_the_new_server() -> None:
    sightings = Sightings()
    driver = driver_of(A, B, observers=[sightings])
    now = asyncio.get_running_loop().time()
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.progressed(1, now=now)
        lease.failed(FailureKind.RESET, retryable=True)
        order = await lease.dispatch()
        assert lease.stream_events == 0
        await asyncio.sleep(PROGRESS_INTERVAL_S * 2)
        assert sightings.events(ResponseProgressed) == []
        lease.progressed(2, now=now + 1.0)
        await asyncio.sleep(PROGRESS_INTERVAL_S * 1.5)
    retried_on = order.backend_id
    assert sightings.events(ResponseProgressed) == [
        ResponseProgressed(retried_on, ((RequestId("r"), 2),), now + 1.0)
    ]


async def test_an_arrival_brings_the_newest_chunks_since_the_last_arrival() -> None:
    sightings = Sightings()
    driver = driver_of(A, B, observers=[sightings])
    now = asyncio.get_running_loop().time()
    async with driver.lease(request("x")) as x, driver.lease(request("y")) as y:
        servers = [(await x.dispatch()).backend_id, (await y.dispatch()).backend_id]
        assert set(servers) == {A, B}
        x.progressed(1, now=now + 0.1)
        y.progressed(1, now=now + 0.2)
        x.progressed(2, now=now + 0.3)
        async with driver.lease(request("z")):
            pass
        x.progressed(3, now=now + 0.4)
        y.progressed(2, now=now + 0.5)
        y.finished(TokenUsage())
        async with driver.lease(request("after-y")):
            pass
        async with driver.lease(request("nothing-new")):
            pass
    arrivals = {
        event.request.id: event.last_chunks
        for event in sightings.events(RequestArrived)
        if isinstance(event, RequestArrived)
    }
    assert arrivals == {
        "x": (),
        "y": (),
        "z": ((servers[0], now + 0.3), (servers[1], now + 0.2)),
        "after-y": ((servers[0], now + 0.4),),
        "nothing-new": (),
    }


async def test_a_report_names_a_chunk_that_an_arrival_has_told_of_before() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    now = asyncio.get_running_loop().time()
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.progressed(5, now=now + 0.1)
        async with driver.lease(request("arrival")):
            pass
        await asyncio.sleep(PROGRESS_INTERVAL_S * 1.5)
    assert sightings.events(ResponseProgressed) == [
        ResponseProgressed(A, ((RequestId("r"), 5),), now + 0.1)
    ]


async def test_a_dispatch_in_the_midst_of_a_report_does_not_double_the_reports() -> None:
    class DispatchOnReport(Sightings):
        """Stands in for a policy that dispatches when it hears of progress."""

        def observed(
            self, event: SchedulerEvent, decisions: Sequence[Decision], *, now: float
        ) -> None:
            super().observed(event, decisions, now=now)
            if isinstance(event, ResponseProgressed) and driver.open_leases == 1:
                driver.open(driver.lease(request("second")))

    sightings = DispatchOnReport()
    driver = driver_of(A, slots=2, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        await stream(lease, events_per_s=10, seconds=4.0)
    assert len(sightings.events(ResponseProgressed)) in {15, 16}
    driver.stop()


async def test_nothing_is_reported_once_nothing_streams() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        await stream(lease, events_per_s=10, seconds=1.0)
    sightings.seen.clear()
    await asyncio.sleep(60.0)
    assert sightings.seen == []
    assert driver.streams._timer is None


# -- observers, stop --------------------------------------------------------------------------


async def test_an_observer_sees_every_event_with_its_decisions_in_order() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request()) as lease:
        order = await lease.dispatch()
        lease.first_token()
        lease.finished(TokenUsage(100, 5, None, 5))
    driver.deliver(BackendLeft(A))
    id_ = RequestId("r")
    assert [seen[1:] for seen in sightings.seen] == [
        (BackendJoined(A, serving()), ()),
        (RequestArrived(request()), (order,)),
        (FirstTokenReceived(id_), ()),
        (ResponseFinished(id_, TokenUsage(100, 5, None, 5)), ()),
        (BackendLeft(A), ()),
    ]


async def test_every_observer_sees_the_same() -> None:
    one, two = Sightings(), Sightings()
    driver = driver_of(A, observers=[one, two])
    async with driver.lease(request()):
        pass
    assert one.seen == two.seen != []


async def test_an_eviction_reaches_the_observers_too() -> None:
    sightings = Sightings()
    driver = driver_of(A, slots=0, observers=[sightings])
    async with driver.lease(request()) as lease:
        with pytest.raises(NotAdmitted):
            await lease.dispatch()
    [evicted] = sightings.seen[-1][2]
    assert isinstance(evicted, Evict)


async def test_a_stopped_driver_sets_no_timer_again() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request("running")) as running, driver.lease(request("waiting")):
        await running.dispatch()
        driver.stop()
        running.progressed(1, now=0.0)
    async with driver.lease(request("running")) as again, driver.lease(request("waiting")):
        again.progressed(1, now=0.0)
        sightings.seen.clear()
        await asyncio.sleep(2 * QUEUE_TIMEOUT_S)
        assert sightings.seen == []


async def test_the_dispatch_can_be_explained() -> None:
    driver = driver_of(A)
    async with driver.lease(request()) as lease:
        order = await lease.dispatch()
        explanation = driver.explain(RequestId("r"))
    assert isinstance(order, Dispatch)
    assert explanation is not None
    assert explanation.chosen == A
