"""The faults of the chaos check: what is done to one server, and how it is undone."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.live.rough_site import RoughSite

_FLAPS = 4
_RETURN_S = 30.0

FREEZE = "freeze (SIGSTOP)"


class Injury(NamedTuple):
    """What one fault showed.

    Attributes:
        noticed_s: until the server got nothing new; None if that did not happen, and need not.
        back_s: from the end of the fault until it got requests again; None if it never did.
    """

    fault: str
    noticed_s: float | None
    back_s: float | None


Fault = Callable[[RoughSite, int, float], Awaitable[None]]
"""Begins on a server, lasts so many seconds, and ends."""


async def _kill(site: RoughSite, number: int, lasts_s: float) -> None:
    site.servers[number].send(signal.SIGKILL)
    await site.servers[number].ended()
    await asyncio.sleep(lasts_s)
    await site.servers[number].start()


async def _terminate(site: RoughSite, number: int, lasts_s: float) -> None:
    site.servers[number].send(signal.SIGTERM)
    await site.servers[number].ended()
    await asyncio.sleep(lasts_s)
    await site.servers[number].start()


async def _freeze(site: RoughSite, number: int, lasts_s: float) -> None:
    site.servers[number].send(signal.SIGSTOP)
    await asyncio.sleep(lasts_s)
    site.servers[number].send(signal.SIGCONT)


async def _slow(site: RoughSite, number: int, lasts_s: float) -> None:
    await site.switch(number, "speed", {"factor": 0.5})
    await asyncio.sleep(lasts_s)
    await site.switch(number, "speed", {"factor": 1.0})


async def _cut(site: RoughSite, number: int, lasts_s: float, how: str) -> None:
    await site.switch(number, "cut", {"how": how, "after_tokens": 5, "times": 10})
    await asyncio.sleep(lasts_s / 2)
    await site.switch(number, "reset" if how == "reset" else "error")
    await asyncio.sleep(lasts_s / 2)
    # Nothing is left to be cut in peace.
    await site.switch(number, "cut", {"how": how, "after_tokens": 1_000_000, "times": 1})


async def _reset(site: RoughSite, number: int, lasts_s: float) -> None:
    await _cut(site, number, lasts_s, "reset")


async def _error(site: RoughSite, number: int, lasts_s: float) -> None:
    await _cut(site, number, lasts_s, "error")


async def _switched(
    site: RoughSite, number: int, lasts_s: float, on: dict[str, object], off: dict[str, object]
) -> None:
    await site.switch(number, "switches", on)
    await asyncio.sleep(lasts_s)
    await site.switch(number, "switches", off)


async def _garbage(site: RoughSite, number: int, lasts_s: float) -> None:
    on: dict[str, object] = {"garbage_metrics": True}
    await _switched(site, number, lasts_s, on, {"garbage_metrics": False})


async def _full(site: RoughSite, number: int, lasts_s: float) -> None:
    for how in ("status", "event"):
        on: dict[str, object] = {"queue_full": how}
        await _switched(site, number, lasts_s / 2, on, {"queue_full": None})


async def _refuse(site: RoughSite, number: int, lasts_s: float) -> None:
    await _switched(site, number, lasts_s, {"refuse": True}, {"refuse": False})


async def _flap(site: RoughSite, number: int, lasts_s: float) -> None:
    for _ in range(_FLAPS):
        on: dict[str, object] = {"unhealthy": True, "refuse": True}
        off: dict[str, object] = {"unhealthy": False, "refuse": False}
        await _switched(site, number, lasts_s / _FLAPS / 2, on, off)
        await asyncio.sleep(lasts_s / _FLAPS / 2)


async def _crash_loop(site: RoughSite, number: int, lasts_s: float) -> None:
    for _ in range(2):
        site.servers[number].send(signal.SIGKILL)
        await site.servers[number].ended()
        await asyncio.sleep(lasts_s / 4)
        await site.servers[number].start()
        await asyncio.sleep(lasts_s / 4)


async def _drain(site: RoughSite, number: int, lasts_s: float) -> None:
    site.write_config(without=number)
    await site.reload()
    await asyncio.sleep(lasts_s)
    site.write_config()
    await site.reload()


async def _reload(site: RoughSite, _: int, lasts_s: float) -> None:
    for times in range(6):
        site.write_config(queue_timeout=20 + times % 2)
        await site.reload()
        await asyncio.sleep(lasts_s / 6)
    site.write_config()
    await site.reload()


FAULTS: tuple[tuple[str, Fault, bool], ...] = (
    ("kill -9", _kill, True),
    ("SIGTERM", _terminate, True),
    (FREEZE, _freeze, True),
    ("slow by half", _slow, False),
    ("reset in mid-stream", _reset, False),
    ("error event in mid-stream", _error, False),
    ("garbage metrics", _garbage, False),
    ("full queue", _full, False),
    ("503 to everything", _refuse, False),
    ("flapping health", _flap, False),
    ("crash loop", _crash_loop, True),
    ("taken out of the pool (reload), and back", _drain, True),
    ("reload, six times", _reload, False),
)
"""Name, what is done, and whether the server must get nothing new meanwhile."""


async def injure(
    site: RoughSite, number: int, fault: tuple[str, Fault, bool], lasts_s: float
) -> Injury:
    """Let one server suffer a fault, and wait until all are used again."""
    name, act, shows = fault
    async with asyncio.TaskGroup() as group:
        noticing = None
        if shows:
            noticing = group.create_task(
                site.until_used(number, wanted=False, within_s=lasts_s + _RETURN_S)
            )
        await act(site, number, lasts_s)
        ended_at = asyncio.get_running_loop().time()
        if noticing is not None and not noticing.done():
            noticing.cancel()  # it is over, unnoticed
    noticed_s = None if noticing is None or noticing.cancelled() else noticing.result()
    await site.until_used(number, wanted=True, within_s=_RETURN_S)
    back = await site.until_used(number, wanted=True, within_s=0.5)
    back_s = None if back is None else asyncio.get_running_loop().time() - ended_at
    return Injury(name, noticed_s, back_s)
