"""Who is blamed for being late."""

import asyncio
import socket
import time

import pytest

from gateway.runtime.patient_timeout import PatientTimeout
from tests.runtime.virtual_time import VirtualTimeLoop


def test_what_takes_longer_than_the_bound_is_cancelled() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with pytest.raises(TimeoutError):
            async with PatientTimeout(2.0):
                await asyncio.Event().wait()
        return loop.time() - began_at

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(wait()) == pytest.approx(2.0)


def test_what_takes_less_is_left_alone_and_no_timer_stays() -> None:
    async def wait() -> bool:
        async with PatientTimeout(2.0):
            await asyncio.sleep(1.9)
        await asyncio.sleep(5.0)
        return True

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(wait())


async def test_an_answer_that_came_while_the_loop_was_held_up_is_not_late() -> None:
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    async with PatientTimeout(0.01):
        answer = asyncio.ensure_future(reader.read(1))
        await asyncio.sleep(0)
        there.send(b"x")
        time.sleep(0.03)  # noqa: ASYNC251 - as a busy loop, or a process that was stopped
        assert await answer == b"x"
    writer.close()
    there.close()


async def test_who_is_cancelled_by_others_is_not_told_of_a_timeout() -> None:
    async def wait() -> None:
        async with PatientTimeout(60.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
