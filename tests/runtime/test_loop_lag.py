import asyncio

import pytest

from gateway.runtime.loop_lag import LoopLag


async def test_the_loop_is_late_by_what_it_did_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    measured: list[float] = []
    enough = asyncio.Event()

    async def late_sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + (0.125 if not measured else -0.001)
        if len(measured) == 2:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("gateway.runtime.loop_lag.asyncio.sleep", late_sleep)
    task = asyncio.create_task(LoopLag(measured.append, clock=lambda: now).run())
    await enough.wait()
    task.cancel()
    assert measured == [pytest.approx(0.125), 0.0]
