import asyncio

from gateway.runtime.periodic import Periodic


async def test_the_action_is_repeated_and_done_once_more_at_the_end() -> None:
    calls: list[float] = []
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(Periodic(lambda: calls.append(loop.time()), interval_s=1.0).run())
    await asyncio.sleep(3.5)

    assert len(calls) == 3
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert len(calls) == 4
