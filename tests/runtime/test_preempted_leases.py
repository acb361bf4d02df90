"""Leases of requests that are given up for a Critical one while they run at a server."""

import asyncio

from gateway.runtime.scheduler_driver import NotAdmitted, SchedulerDriver
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.events import FailureKind, RequestCancelled
from gateway.scheduling.model import InferenceRequest, RequestId, TokenUsage
from tests.runtime.driver_rig import A, Sightings, driver_of, in_flight, request, until


def chat(request_id: str = "critical") -> InferenceRequest:
    return request(request_id, service="chat")


def batch() -> InferenceRequest:
    return request("victim", service="impatient")


async def run_until_given_up(driver: SchedulerDriver, told: list[NotAdmitted]) -> None:
    async with driver.lease(batch()) as lease:
        await lease.dispatch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            refusal = lease.given_up()
            if refusal is None:
                raise
            told.append(refusal)


async def test_the_task_is_told_and_the_place_is_free_once_it_has_left() -> None:
    sightings = Sightings()
    driver = driver_of(A, preempts=True, observers=[sightings])
    told: list[NotAdmitted] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_until_given_up(driver, told))
        await until(lambda: in_flight(driver) == 1)
        async with driver.lease(chat()) as critical:
            assert driver.snapshot().queued_requests == 1, "the victim is not closed yet"
            assert (await critical.dispatch()).backend_id == A
            (refusal,) = told
            assert refusal.reason is RefusalReason.PREEMPTED
            assert refusal.retry_after_s is not None
    assert sightings.events(RequestCancelled)[0] == RequestCancelled(RequestId("victim"))
    assert (in_flight(driver), driver.open_leases) == (0, 0)


async def test_a_client_that_leaves_in_the_same_moment_is_not_mistaken_for_it() -> None:
    driver = driver_of(A, preempts=True)
    told: list[NotAdmitted] = []
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run_until_given_up(driver, told))
        await until(lambda: in_flight(driver) == 1)
        async with driver.lease(chat()) as critical:
            running.cancel()
            await critical.dispatch()
        await until(running.done)
    assert running.cancelled()
    assert told == []


async def test_a_client_that_leaves_on_its_own_is_not_told() -> None:
    driver = driver_of(A, preempts=True)
    told: list[NotAdmitted] = []
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run_until_given_up(driver, told))
        await until(lambda: in_flight(driver) == 1)
        running.cancel()
    assert (told, in_flight(driver)) == ([], 0)


async def test_dispatched_and_given_up_before_the_waiter_resumes_is_a_refusal() -> None:
    driver = driver_of(A, preempts=True)
    refusals: list[RefusalReason] = []

    async def wait() -> None:
        async with driver.lease(batch()) as lease:
            try:
                await lease.dispatch()
            except NotAdmitted as refusal:
                refusals.append(refusal.reason)
        await asyncio.sleep(0)  # a cancellation that is still to come would show here

    async with asyncio.TaskGroup() as tasks, driver.lease(chat("first")) as first:
        await first.dispatch()
        waiting = tasks.create_task(wait())
        await until(lambda: driver.snapshot().queued_requests == 1)
        first.finished(TokenUsage(100, 5, None, 5))
        assert in_flight(driver) == 1, "the victim was dispatched in the same call"
        async with driver.lease(chat("second")) as second:
            assert (await second.dispatch()).backend_id == A
        await until(waiting.done)
    assert refusals == [RefusalReason.PREEMPTED]
    assert (in_flight(driver), driver.open_leases) == (0, 0)


async def test_a_failure_that_is_told_all_the_same_is_not_tried_again() -> None:
    driver = driver_of(A, preempts=True)
    refusals: list[RefusalReason] = []

    async def fail() -> None:
        async with driver.lease(batch()) as lease:
            await lease.dispatch()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert lease.given_up() is not None
                lease.failed(FailureKind.RESET, retryable=True)
            try:
                await lease.dispatch()
            except NotAdmitted as refusal:
                refusals.append(refusal.reason)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        await until(lambda: in_flight(driver) == 1)
        async with driver.lease(chat()) as critical:
            assert (await critical.dispatch()).backend_id == A
            assert refusals == [RefusalReason.PREEMPTED]
    assert (in_flight(driver), driver.open_leases) == (0, 0)
