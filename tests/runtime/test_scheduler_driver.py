import asyncio

import pytest

from gateway.runtime.scheduler_driver import (
    NotAdmitted,
    SchedulerDriver,
)
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import (
    DeadlinePassed,
    DispatchFailed,
    FailureKind,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
)
from gateway.scheduling.model import (
    RequestId,
    TokenUsage,
)
from tests.runtime.driver_rig import (
    QUEUE_TIMEOUT_S,
    A,
    B,
    Sightings,
    driver_of,
    in_flight,
    request,
    until,
)
from tests.runtime.virtual_time import VirtualTimeLoop


async def hold(driver: SchedulerDriver, request_id: str, dispatched: list[str]) -> None:
    """Take a lease, note its dispatch, keep it."""
    async with driver.lease(request(request_id)) as lease:
        await lease.dispatch()
        dispatched.append(request_id)
        await asyncio.Event().wait()


# -- dispatch and release ---------------------------------------------------------------------


async def test_a_request_with_room_is_dispatched_without_waiting() -> None:
    driver = driver_of(A)
    async with driver.lease(request()) as lease:
        order = await lease.dispatch()
        assert (order.backend_id, order.model, order.attempt) == (A, "base", 1)
        assert in_flight(driver) == 1


async def test_a_finished_answer_releases_its_place_to_the_next_in_line() -> None:
    driver = driver_of(A)
    dispatched: list[str] = []
    async with asyncio.TaskGroup() as tasks, driver.lease(request("first")) as first:
        await first.dispatch()
        waiting = tasks.create_task(hold(driver, "second", dispatched))
        await until(lambda: driver.snapshot().queued_requests == 1)
        first.finished(TokenUsage(100, 5, None, 5))
        await until(lambda: dispatched == ["second"])
        waiting.cancel()
    assert (in_flight(driver), driver.open_leases) == (0, 0)


async def test_leaving_without_an_ending_releases_the_place() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
    assert sightings.events(RequestCancelled) == [RequestCancelled(RequestId("r"))]
    assert (in_flight(driver), driver.open_leases) == (0, 0)


async def test_leaving_by_an_exception_releases_the_place_and_passes_the_exception_on() -> None:
    driver = driver_of(A)

    async def stumble() -> None:
        async with driver.lease(request()) as lease:
            await lease.dispatch()
            raise LookupError

    with pytest.raises(LookupError):
        await stumble()
    assert (in_flight(driver), driver.open_leases) == (0, 0)


async def test_an_answer_that_failed_at_the_server_is_told_as_such() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.finished(TokenUsage(), ok=False)
    assert sightings.seen[-1][1] == ResponseFinished(RequestId("r"), TokenUsage(), ok=False)


async def test_leaving_after_an_ending_tells_nothing_more() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.finished(TokenUsage(100, 5, None, 5))
    assert isinstance(sightings.seen[-1][1], ResponseFinished)


async def test_a_client_that_leaves_while_queued_is_forgotten_at_once() -> None:
    driver = driver_of(A, slots=0)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(hold(driver, "r", []))
        await until(lambda: driver.snapshot().queued_requests == 1)
        waiting.cancel()
    assert (driver.snapshot().queued_requests, driver.open_leases) == (0, 0)


async def test_dispatched_and_cancelled_before_the_waiter_resumes_releases_the_place() -> None:
    driver = driver_of(A)
    dispatched: list[str] = []
    async with asyncio.TaskGroup() as tasks, driver.lease(request("first")) as first:
        await first.dispatch()
        waiting = tasks.create_task(hold(driver, "second", dispatched))
        await until(lambda: driver.snapshot().queued_requests == 1)
        first.finished(TokenUsage(100, 5, None, 5))
        assert in_flight(driver) == 1, "the second request was dispatched in the same call"
        waiting.cancel()
    assert (in_flight(driver), driver.open_leases, dispatched) == (0, 0, [])


async def test_cancelled_and_dispatched_before_the_waiter_resumes_releases_the_place() -> None:
    driver = driver_of(A)
    dispatched: list[str] = []
    async with asyncio.TaskGroup() as tasks, driver.lease(request("first")) as first:
        await first.dispatch()
        waiting = tasks.create_task(hold(driver, "second", dispatched))
        await until(lambda: driver.snapshot().queued_requests == 1)
        waiting.cancel()
        first.finished(TokenUsage(100, 5, None, 5))
        assert in_flight(driver) == 1, "the second request was dispatched in the same call"
    assert (in_flight(driver), driver.open_leases, dispatched) == (0, 0, [])


async def test_an_id_that_is_open_cannot_be_leased_again() -> None:
    driver = driver_of(A, slots=2)
    async with driver.lease(request()):
        with pytest.raises(ValueError, match="'r' is in use"):
            await driver.lease(request()).__aenter__()
        assert driver.open_leases == 1
    async with driver.lease(request()) as again:
        await again.dispatch()


async def test_a_decision_about_a_request_that_nobody_leased_disturbs_no_other() -> None:
    driver = driver_of(A)
    driver.deliver(RequestArrived(request("nobody's")))
    async with driver.lease(request()):
        driver.deliver(RequestCancelled(RequestId("nobody's")))
        assert in_flight(driver) == 1


# -- refusals ---------------------------------------------------------------------------------


async def test_a_refusal_on_arrival_is_raised_where_the_dispatch_is_awaited() -> None:
    driver = driver_of(A)
    async with driver.lease(request(service="nobody's")) as lease:
        with pytest.raises(NotAdmitted) as refused:
            await lease.dispatch()
        assert refused.value.reason is RefusalReason.UNKNOWN_MODEL
    assert driver.open_leases == 0


async def test_a_refused_request_is_not_cancelled_on_top() -> None:
    sightings = Sightings()
    driver = driver_of(A, observers=[sightings])
    async with driver.lease(request(service="nobody's")):
        pass
    assert sightings.events(RequestCancelled) == []


async def test_a_request_that_waits_too_long_is_given_up_by_the_timer() -> None:
    driver = driver_of(A, slots=0)
    began_at = asyncio.get_running_loop().time()
    async with driver.lease(request()) as lease:
        with pytest.raises(NotAdmitted) as refused:
            await lease.dispatch()
    assert refused.value.reason is RefusalReason.QUEUE_TIMEOUT
    assert asyncio.get_running_loop().time() == pytest.approx(began_at + QUEUE_TIMEOUT_S)


async def test_each_of_two_requests_is_given_up_at_its_own_deadline() -> None:
    sightings = Sightings()
    driver = driver_of(A, slots=0, observers=[sightings])

    async def give_up(request_id: str) -> None:
        async with driver.lease(request(request_id)) as lease:
            with pytest.raises(NotAdmitted):
                await lease.dispatch()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(give_up("first"))
        await asyncio.sleep(10.0)
        tasks.create_task(give_up("second"))
    arrived, expired = sightings.times(RequestArrived), sightings.times(DeadlinePassed)
    waits = [gone - came for came, gone in zip(arrived, expired, strict=True)]
    assert waits == pytest.approx([QUEUE_TIMEOUT_S, QUEUE_TIMEOUT_S])


async def test_a_shorter_deadline_that_comes_later_replaces_the_timer() -> None:
    sightings = Sightings()
    driver = driver_of(A, slots=0, observers=[sightings])
    began_at = asyncio.get_running_loop().time()
    async with driver.lease(request("patient")), driver.lease(request("x", service="impatient")):
        await asyncio.sleep(QUEUE_TIMEOUT_S - 5.0)
        assert sightings.times(DeadlinePassed) == pytest.approx([began_at + 1.0])
        await asyncio.sleep(10.0)
    assert len(sightings.times(DeadlinePassed)) == 2


async def test_a_longer_deadline_that_comes_later_leaves_the_timer_alone() -> None:
    driver = driver_of(A, slots=0)
    async with driver.lease(request("x", service="impatient")):
        timer = driver._deadline_timer
        async with driver.lease(request("patient")):
            assert driver._deadline_timer is timer is not None


async def test_a_timer_that_fires_early_does_not_ask_again_and_again() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.whole_milliseconds = True
    sightings = Sightings()
    driver = driver_of(A, slots=0, observers=[sightings], queue_timeout_s=0.0254)
    async with driver.lease(request()) as lease:
        with pytest.raises(NotAdmitted):
            await lease.dispatch()
    assert len(sightings.events(DeadlinePassed)) == 2


# -- failures ---------------------------------------------------------------------------------


async def test_a_retryable_failure_leads_to_another_server() -> None:
    driver = driver_of(A, B)
    async with driver.lease(request()) as lease:
        first = await lease.dispatch()
        lease.failed(FailureKind.CONNECT, retryable=True)
        second = await lease.dispatch()
        assert {first.backend_id, second.backend_id} == {A, B}
        assert second.attempt == 2
        assert in_flight(driver) == 1
    assert in_flight(driver) == 0


async def test_a_retry_waits_for_the_other_server_as_long_as_any_request_would() -> None:
    driver = driver_of(A, B)
    async with driver.lease(request("first")) as first, driver.lease(request("other")) as other:
        await first.dispatch()
        free = await other.dispatch()
        first.failed(FailureKind.CONNECT, retryable=True)
        async with asyncio.TaskGroup() as tasks:
            retried = tasks.create_task(first.dispatch())
            await asyncio.sleep(QUEUE_TIMEOUT_S / 2)
            assert not retried.done()
            other.finished(TokenUsage(100, 5, None, 5))
        assert retried.result().backend_id == free.backend_id


async def test_a_retryable_failure_with_no_server_left_is_a_refusal() -> None:
    driver = driver_of(A)
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.failed(FailureKind.SERVER_ERROR, retryable=True)
        with pytest.raises(NotAdmitted, match="attempts_exhausted"):
            await lease.dispatch()
    assert (in_flight(driver), driver.open_leases) == (0, 0)


async def test_a_final_failure_ends_the_lease() -> None:
    sightings = Sightings()
    driver = driver_of(A, B, observers=[sightings])
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.failed(FailureKind.STREAM_ERROR, retryable=False)
        assert (in_flight(driver), driver.open_leases) == (0, 0)
    failure = DispatchFailed(RequestId("r"), FailureKind.STREAM_ERROR, retryable=False)
    assert sightings.seen[-1][1:] == (failure, ())


async def test_a_failure_after_the_first_token_cannot_be_called_retryable() -> None:
    driver = driver_of(A, B)
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        lease.first_token()
        with pytest.raises(ValueError, match="after its first token"):
            lease.failed(FailureKind.RESET, retryable=True)
    assert (in_flight(driver), driver.open_leases) == (0, 0)


# -- servers that leave -----------------------------------------------------------------------


async def test_an_action_waits_for_the_last_request_at_a_server() -> None:
    driver = driver_of(A)
    called: list[int] = []
    async with driver.lease(request()) as lease:
        await lease.dispatch()
        driver.streams.call_when_empty(A, lambda: called.append(driver.streams.on(A)))
        await asyncio.sleep(0)
        assert not called
        lease.finished(TokenUsage())
    await asyncio.sleep(0)
    assert called == [0]


async def test_an_action_for_a_server_without_requests_is_called_soon() -> None:
    driver = driver_of(A)
    called: list[int] = []
    driver.streams.call_when_empty(A, lambda: called.append(1))
    assert not called
    await asyncio.sleep(0)
    assert called == [1]
