import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.control.configuration import ConfigurationInForce
from gateway.control.reload import Reloader
from gateway.settings.loading import load_file
from gateway.settings.schema import Settings
from tests.server.raw_server import eventually


@asynccontextmanager
async def reloading(
    path: Path, *, watched: bool
) -> AsyncIterator[tuple[ConfigurationInForce, Reloader]]:
    configuration = ConfigurationInForce(Settings(), load=lambda: load_file(path))
    reloader = Reloader(configuration, files=lambda: [path] if watched else [], look_s=0.002)
    task = asyncio.create_task(reloader.run())
    await asyncio.sleep(0)
    try:
        yield configuration, reloader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_request_reloads_once(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("stall_timeout: 5s")
    async with reloading(path, watched=False) as (configuration, reloader):
        reloader.request()
        await eventually(lambda: configuration.reloads == 1)
        assert configuration.settings.stall_timeout == 5.0
        await asyncio.sleep(0.01)
        assert configuration.reloads == 1


async def test_a_watched_file_that_changes_is_reloaded(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("stall_timeout: 5s")
    async with reloading(path, watched=True) as (configuration, _):
        path.write_text("stall_timeout: 60s")
        await eventually(lambda: configuration.reloads == 1)
        assert configuration.settings.stall_timeout == 60.0


async def test_a_file_behind_a_link_that_is_replaced_is_reloaded(tmp_path: Path) -> None:
    """This is how a volume of a ConfigMap is updated."""
    for name, text in (("one", "stall_timeout: 5s"), ("two", "stall_timeout: 6s")):
        (tmp_path / name).write_text(text)
    link = tmp_path / "link"
    link.symlink_to("one")
    async with reloading(link, watched=True) as (configuration, _):
        fresh = tmp_path / "fresh"
        fresh.symlink_to("two")
        fresh.rename(link)
        await eventually(lambda: configuration.settings.stall_timeout == 6.0)


async def test_a_wrong_file_is_tried_once_and_again_when_it_is_mended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("stall_timeout: 5s")
    async with reloading(path, watched=True) as (configuration, _):
        path.write_text("stall_timeout: never")
        await eventually(lambda: configuration.failed_reloads == 1)
        await asyncio.sleep(0.01)
        assert configuration.failed_reloads == 1
        path.write_text("stall_timeout: 50s")
        await eventually(lambda: configuration.reloads == 1)


async def test_a_file_that_is_not_watched_is_not_reloaded(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("stall_timeout: 5s")
    async with reloading(path, watched=False) as (configuration, _):
        path.write_text("stall_timeout: 50s")
        await asyncio.sleep(0.01)
        assert configuration.reloads == 0
