"""CPU time of the live page; `python -m benchmarks.micro.live_page_cost`.

A pool of many servers and services with requests at servers and a full history; viewers that read
the stream of events and ask for recent requests once a second, as the page does. Told is the CPU
time that the gateway's process spends per second, without and with viewers.
"""

import argparse
import asyncio
from time import process_time

from gateway.server.admin import AdminPages
from gateway.server.app import Listener, ListenOptions
from tests.browser.scenes import Scene, large

_SECONDS = 10.0


async def _viewer(port: int, *, asks: bool) -> None:
    """Read everything, in another process: what a browser costs is not the gateway's."""
    script = f"""
import http.client, threading, time
def ask():
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", {port})
        while True:
            time.sleep(1)
            connection.request("GET", "/live/requests?limit=15&search=service-07")
            connection.getresponse().read()
if {asks}: threading.Thread(target=ask, daemon=True).start()
stream = http.client.HTTPConnection("127.0.0.1", {port})
stream.request("GET", "/live/events")
answer = stream.getresponse()
while answer.read1(1 << 20): pass
"""
    process = await asyncio.create_subprocess_exec("python3", "-c", script)
    try:
        await process.wait()
    finally:
        process.kill()
        await process.wait()


async def _cost_ms(scene: Scene, port: int, viewers: int) -> float:
    """CPU milliseconds per second."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_viewer(port, asks=True)) for _ in range(viewers)]
        while scene.page.feed.viewers < viewers:  # noqa: ASYNC110 - they come by themselves
            await asyncio.sleep(0.05)
        await asyncio.sleep(2.0)
        before = process_time()
        await asyncio.sleep(_SECONDS)
        spent = process_time() - before
        for task in tasks:
            task.cancel()
    return spent / _SECONDS * 1e3


async def _main(servers: int, services: int) -> None:
    scene = large(servers=servers, services=services)
    admin = AdminPages(pools=scene.pools, render_metrics=lambda: b"", sections=[scene.page.pages])
    listener = Listener(admin.handle, ListenOptions())
    await listener.open()
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(scene.page.feed.run())
        print(f"{servers} servers, {services} services, {len(scene.page.recent)} recent requests")
        for viewers in (0, 1, 4):
            cost_ms = await _cost_ms(scene, listener.port, viewers)
            print(f"{viewers} viewers: {cost_ms:.2f} ms of CPU per second")
        feed.cancel()
    scene.driver.stop()
    await listener.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--services", type=int, default=50)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.servers, arguments.services))
