import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, ServedModel
from gateway.server.backend_client import BackendClient
from gateway.server.backend_directory import BackendDirectory
from gateway.server.backend_monitor import BackendMonitor, metrics_pause_s
from gateway.server.options import BackendConnectOptions, BackendEndpoint, MonitorOptions
from tests.server.raw_server import Peer, RawServer, eventually, ok
from tests.server.recordings import FOLDER

S0 = BackendId("s0")
FAST = MonitorOptions(
    metrics_interval_s=0.002, health_interval_s=0.003, models_interval_s=0.003, timeout_s=1.0
)
MODELS = (FOLDER / "models.txt").read_bytes()
METRICS = ok((FOLDER / "metrics_warm_idle.txt").read_bytes())


class Engine(RawServer):
    """Answers the monitor as vLLM does; a path set to None is never answered."""

    def __init__(self) -> None:
        super().__init__(self._serve)
        self.pages: dict[str, bytes | None] = {
            "/health": ok(b""),
            "/v1/models": MODELS,
            "/metrics": METRICS,
        }
        self.health: Iterator[bytes] | None = None
        self.asked: list[str] = []

    async def _serve(self, peer: Peer) -> None:
        while True:
            path = (await peer.request()).line.split(" ")[1]
            self.asked.append(path)
            page = self.pages[path]
            if path == "/health" and self.health is not None:
                page = next(self.health)
            if page is None:
                await peer.gone()
                return
            await peer.send(page)


class Watched:
    """A monitor at work on one engine, and what it told."""

    def __init__(self, engine: Engine, options: MonitorOptions) -> None:
        endpoint = BackendEndpoint.parse(engine.url)
        client = BackendClient(BackendConnectOptions(endpoint=endpoint), clock=monotonic_clock)
        self.backends = BackendDirectory({S0: client})
        self.told: list[SchedulerEvent] = []
        self.monitor = BackendMonitor(
            backends=self.backends,
            deliver=self.told.append,
            clock=monotonic_clock,
            rng=Random(1),
            options=options,
        )

    @property
    def health(self) -> list[str]:
        return [
            type(event).__name__
            for event in self.told
            if isinstance(event, BackendJoined | BackendLeft)
        ]

    @property
    def reports(self) -> list[BackendLoadReported]:
        return [event for event in self.told if isinstance(event, BackendLoadReported)]


@asynccontextmanager
async def watching(engine: Engine, options: MonitorOptions = FAST) -> AsyncIterator[Watched]:
    await engine.start()
    watched = Watched(engine, options)
    task = asyncio.create_task(watched.monitor.run())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        watched.backends.close()
        await engine.stop()


async def test_a_healthy_server_joins_with_its_models() -> None:
    async with watching(Engine()) as watched:
        await eventually(lambda: watched.told)
        joined = watched.told[0]
        assert isinstance(joined, BackendJoined)
        assert ServedModel("base", None, 2_048) in joined.models
        assert watched.backends.served("base") is not None


async def test_why_a_server_has_never_been_in_is_known() -> None:
    engine = Engine()
    engine.pages["/health"] = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
    async with watching(engine) as watched:
        contact = watched.backends.contact(S0)
        assert contact is not None
        first = contact.silence()
        assert first is not None
        assert (first.was_heard, first.trouble) == (False, None)
        await eventually(lambda: len(engine.asked) >= 5)
        silence = contact.silence()
        assert silence is not None
        assert (silence.was_heard, silence.trouble) == (False, "/health answers 503")
        engine.pages["/health"] = ok(b"")
        await eventually(lambda: contact.healthy)
        assert contact.silence() is None


async def test_a_server_that_went_out_is_known_to_have_been_in() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        contact = watched.backends.contact(S0)
        assert contact is not None
        await eventually(lambda: contact.healthy)
        await engine.stop()
        await eventually(lambda: not contact.healthy)
        silence = contact.silence()
        assert silence is not None
        assert silence.was_heard
        assert "111" in (silence.trouble or "")


async def test_load_is_reported_again_and_again_with_the_time_it_was_asked_for() -> None:
    async with watching(Engine()) as watched:
        before = monotonic_clock()
        await eventually(lambda: len(watched.reports) >= 3)
        first, second = watched.reports[:2]
        assert first.load.running == 0
        assert first.load.kv_blocks
        assert before < first.taken_at < second.taken_at < monotonic_clock()


async def test_a_server_joins_once_although_it_is_asked_often() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: engine.asked.count("/v1/models") >= 4)
        assert watched.health == ["BackendJoined"]


async def test_a_change_of_models_is_told() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        engine.pages["/v1/models"] = ok(b'{"data":[{"id":"new"}]}')
        await eventually(lambda: watched.backends.served("new"))
        assert watched.backends.served("base") is None
        assert watched.health == ["BackendJoined", "BackendJoined"]


async def test_failing_scrapes_alone_take_no_server_out() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.reports)
        engine.pages["/metrics"] = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"
        asked = len(engine.asked)
        await eventually(lambda: engine.asked[asked:].count("/metrics") >= 10)
        assert watched.health == ["BackendJoined"]


async def test_a_server_leaves_when_health_has_failed_several_times_in_a_row() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        asked = len(engine.asked)
        engine.pages["/health"] = b"HTTP/1.1 500 Dead\r\ncontent-length: 0\r\n\r\n"
        await eventually(lambda: "BackendLeft" in watched.health)
        assert engine.asked[asked:].count("/health") >= FAST.failures_to_leave
        assert not watched.backends.any_usable
        engine.pages["/health"] = ok(b"")
        await eventually(lambda: watched.health[-1] == "BackendJoined")
        assert watched.backends.any_usable


async def test_a_single_failure_takes_no_server_out() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        engine.pages["/health"] = b"HTTP/1.1 503 Hm\r\ncontent-length: 0\r\n\r\n"
        asked = len(engine.asked)
        await eventually(lambda: "/health" in engine.asked[asked:])
        engine.pages["/health"] = ok(b"")
        await eventually(lambda: engine.asked[asked:].count("/health") >= 5)
        assert watched.health == ["BackendJoined"]


async def test_failures_with_a_success_between_them_do_not_add_up() -> None:
    engine = Engine()
    bad = b"HTTP/1.1 503 Hm\r\ncontent-length: 0\r\n\r\n"
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        engine.health = itertools.cycle([bad, bad, ok(b"")])
        asked = len(engine.asked)
        await eventually(lambda: engine.asked[asked:].count("/health") >= 12)
        assert watched.health == ["BackendJoined"]


@pytest.mark.interpreted
async def test_a_page_without_end_is_refused_and_takes_no_server_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.server.backend_client._MAX_PAGE_BYTES", 100_000)
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.reports)
        engine.pages["/metrics"] = ok(b"x" * 100_001)
        asked = len(engine.asked)
        await eventually(lambda: engine.asked[asked:].count("/metrics") >= 5)
        reports = len(watched.reports)
        await eventually(lambda: engine.asked[asked:].count("/metrics") >= 10)
        assert len(watched.reports) == reports
        assert watched.health == ["BackendJoined"]


async def test_a_server_that_is_removed_leaves_for_good_also_when_it_was_down() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        engine.pages["/health"] = b"HTTP/1.1 500 Dead\r\ncontent-length: 0\r\n\r\n"
        await eventually(lambda: "BackendLeft" in watched.health)
        watched.monitor.remove(S0)
        left = [event for event in watched.told if isinstance(event, BackendLeft)]
        assert left == [BackendLeft(S0), BackendLeft(S0, for_good=True)]


async def test_nobody_is_told_of_the_removal_of_a_server_that_never_was_in() -> None:
    engine = Engine()
    engine.pages["/health"] = b"HTTP/1.1 500 Dead\r\ncontent-length: 0\r\n\r\n"
    async with watching(engine) as watched:
        await eventually(lambda: engine.asked.count("/health") >= 3)
        watched.monitor.remove(S0)
        assert watched.told == []


async def test_a_server_that_hangs_leaves_too() -> None:
    engine = Engine()
    async with watching(engine, replace(FAST, timeout_s=0.1)) as watched:
        await eventually(lambda: watched.health)
        engine.pages["/health"] = None
        await eventually(lambda: watched.health[-1] == "BackendLeft")


async def test_a_refused_connection_counts_as_all_the_failures_it_takes() -> None:
    engine = Engine()
    options = replace(FAST, metrics_interval_s=60.0, failures_to_leave=1_000_000)
    async with watching(engine, options) as watched:
        await eventually(lambda: watched.health)
        await engine.stop()
        await eventually(lambda: watched.health[-1] == "BackendLeft")


async def test_a_server_that_refuses_connections_leaves_long_before_its_next_turn() -> None:
    """The scrape, which is asked for more often, makes the monitor look at once."""
    engine = Engine()
    options = MonitorOptions(metrics_interval_s=0.002, health_interval_s=60.0)
    async with watching(engine, options) as watched:
        await eventually(lambda: watched.reports)
        port = engine.port
        await engine.stop()
        await eventually(lambda: watched.health[-1] == "BackendLeft")
        await engine.start(port)
        watched.backends.suspect(S0)
        await eventually(lambda: watched.health[-1] == "BackendJoined")


async def test_a_server_that_is_down_at_first_joins_when_it_comes_up() -> None:
    engine = Engine()
    await engine.start()
    port = engine.port
    watched = Watched(engine, FAST)
    await engine.stop()
    task = asyncio.create_task(watched.monitor.run())
    for _ in range(5):
        await asyncio.sleep(0.003)
    assert not watched.told
    await engine.start(port)
    await eventually(lambda: watched.health == ["BackendJoined"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    watched.backends.close()
    await engine.stop()


@pytest.mark.parametrize(
    "page", [ok(b"nonsense"), b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", None]
)
async def test_a_server_that_lists_no_models_does_not_join(page: bytes | None) -> None:
    engine = Engine()
    engine.pages["/v1/models"] = page
    async with watching(engine, replace(FAST, timeout_s=0.02)) as watched:
        await eventually(lambda: engine.asked.count("/v1/models") >= 2)
        assert not watched.told


async def test_no_report_follows_the_leaving_of_its_server() -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.told)
        for _ in range(5):
            engine.pages["/health"] = ok(b"")
            await eventually(lambda: isinstance(watched.told[-1], BackendLoadReported))
            engine.pages["/health"] = b"HTTP/1.1 500 Dead\r\ncontent-length: 0\r\n\r\n"
            await eventually(lambda: watched.health[-1] == "BackendLeft")
        inside = False
        for event in watched.told:
            match event:
                case BackendJoined():
                    inside = True
                case BackendLeft():
                    inside = False
                case _:
                    assert inside


async def test_the_log_says_once_that_a_server_is_in_and_once_why_it_is_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        engine.pages["/health"] = b"HTTP/1.1 500 Dead\r\ncontent-length: 0\r\n\r\n"
        asked = len(engine.asked)
        await eventually(lambda: len(watched.health) == 2 and len(engine.asked) > asked + 20)
        assert caplog.messages == [
            "server s0 is in, models: 5",
            "server s0 is out: /health answers 500",
        ]


async def test_the_log_says_why_a_server_was_never_in(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    engine.pages["/v1/models"] = ok(b"<html>")
    async with watching(engine):
        await eventually(lambda: engine.asked.count("/v1/models") >= 4)
        problem = "/v1/models answers 200 without a list of models"
        assert caplog.messages == [f"server s0 is out: {problem}"]


async def test_the_log_says_that_nobody_listens_at_a_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    async with watching(engine) as watched:
        await eventually(lambda: watched.health)
        await engine.stop()
        await eventually(lambda: caplog.messages)
        assert "refused" in caplog.text or "Connect call failed" in caplog.text


@pytest.mark.parametrize(("servers", "pause_s"), [(1, 0.1), (50, 0.1), (100, 0.2), (1_000, 0.8)])
def test_each_server_of_a_large_pool_is_asked_less_often(servers: int, pause_s: float) -> None:
    assert metrics_pause_s(0.1, servers) == pytest.approx(pause_s)
