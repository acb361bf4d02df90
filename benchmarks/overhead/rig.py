"""Starts and stops what is measured, pins it, puts load on it and reads its CPU time and memory."""

import math
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.overhead.process_tree import (
    cpu_seconds,
    end,
    memory_bytes,
    send_signal,
    tree_of,
)
from benchmarks.overhead.programs import (
    compile_programs,
    request_body,
    write_metrics_page,
)
from benchmarks.overhead.systems import SLOW, Site, System

_START_S = 90.0
_LONGEST_ERROR = 500
_HELD_CHUNK_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Running:
    """A system under test that answers; `process` is None where there is none between."""

    name: str
    version: str
    port: int
    process: subprocess.Popen[bytes] | None

    @property
    def slow(self) -> bool:
        """Whether it is slow by far."""
        return self.name in SLOW

    def pids(self) -> list[int]:
        """Its processes."""
        return [] if self.process is None else tree_of(self.process.pid)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one run of `load` printed, and the CPU time of the system meanwhile."""

    printed: dict[str, object]
    cpu_s: float

    @property
    def seconds(self) -> float:
        """Length of the measured window."""
        return self.count("seconds")

    def count(self, name: str) -> float:
        """One plain number."""
        value = self.printed[name]
        assert isinstance(value, int | float)
        return float(value)

    def at(self, name: str, quantile: str) -> float:
        """A quantile in microseconds; not a number where nothing was measured."""
        samples = self.printed[name]
        return float(samples[quantile]) if isinstance(samples, dict) else math.nan

    def per_second(self, name: str) -> float:
        """A count as a rate."""
        return self.count(name) / self.seconds

    def cpu_us_per(self, name: str) -> float:
        """CPU time for each of them, microseconds."""
        count = self.count(name)
        return self.cpu_s / count * 1e6 if count else math.nan


class Rig:
    """The fake servers and the load generator, on one core; what is measured gets another.

    Attributes:
        seconds: length of one measured window.
        servers: ports of the fake servers.
    """

    def __init__(
        self, *, folder: Path, servers: int, cores: tuple[int, int], seconds: float
    ) -> None:
        """`cores` are that of what is measured and that of the rig."""
        self.seconds = seconds
        self._folder = folder
        self._cores = cores
        self._files: dict[bytes, Path] = {}
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for all that is started here
        compile_programs(folder)
        page = write_metrics_page(folder)
        with _on_core(cores[1]):
            self._backend = subprocess.Popen(
                [folder / "backend", str(servers), page],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._backend.stdout is not None
        self.servers = tuple(int(port) for port in self._backend.stdout.readline().split())

    def close(self) -> None:
        """End the fake servers."""
        end(self._backend)

    def site(self, name: str) -> Site:
        """A folder and free ports for one system."""
        folder = self._folder / name.replace("/", "-")
        folder.mkdir(exist_ok=True)
        port, side_port = _free_ports(2)
        return Site(folder=folder, port=port, side_port=side_port, servers=self.servers)

    @contextmanager
    def running(self, system: System, site: Site) -> Iterator[Running]:
        """Start a system, wait until it answers a request; end it at the end.

        Raises:
            RuntimeError: it ended, or does not answer in time.
        """
        if not system.command:
            yield Running(system.name, system.version, self.servers[0], None)
            return
        log = site.folder / "output.log"
        with log.open("wb") as output, _on_core(self._cores[0]):
            process = subprocess.Popen(
                system.command,
                cwd=site.folder,
                env=os.environ | system.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _wait_for_answer(process, site.port, log)
            yield Running(system.name, system.version, site.port, process)
        finally:
            end(process)

    def load(
        self,
        system: Running,
        *,
        body: bytes,
        connections: int,
        seconds: float | None = None,
        warm_up_s: float = 0.3,
    ) -> Loaded:
        """Put load on a system and measure for `seconds`."""
        process = self._load(system, body, connections, (warm_up_s, seconds or self.seconds), 0)
        assert process.stdout is not None
        pids = system.pids()
        process.stdout.readline()
        cpu_s = cpu_seconds(pids)
        printed = process.stdout.readline()
        cpu_s = cpu_seconds(pids) - cpu_s
        process.wait()
        return Loaded(orjson.loads(printed), cpu_s)

    @contextmanager
    def beside(self, system: Running, *, body: bytes, pause_us: int) -> Iterator[None]:
        """One more client, which sends `body` again and again."""
        process = self._load(system, body, 1, (0.0, 600.0), pause_us)
        try:
            yield
        finally:
            end(process)

    def hold(self, system: Running, *, streams: int) -> dict[str, float]:
        """Open many streams and read the system's memory before and with all of them open."""
        settle_s, most_s = 1.5, 40.0
        pids = system.pids()
        before = memory_bytes(pids)
        chunks = 12 + streams // 400
        body = request_body(size=1_000, streamed=True, chunks=chunks, interval_us=_HELD_CHUNK_US)
        process = self._load(system, body, streams, (0.0, most_s), 0, hold=True)
        assert process.stdout is not None
        opened = int(process.stdout.readline().split()[1])
        time.sleep(settle_s)
        with_all = memory_bytes(system.pids())
        loaded = Loaded(orjson.loads(process.stdout.readline()), 0.0)
        process.wait()
        return {
            "idle_mb": before / 1e6,
            "open_mb": with_all / 1e6,
            "kb_per_stream": (with_all - before) / streams / 1e3,
            "opened": opened,
            "served": loaded.count("responses"),
            "late_p99_us": loaded.at("late_us", "p99"),
        }

    def _load(
        self,
        system: Running,
        body: bytes,
        connections: int,
        times: tuple[float, float],
        pause_us: int,
        *,
        hold: bool = False,
    ) -> subprocess.Popen[bytes]:
        if body not in self._files:
            self._files[body] = self._folder / f"body-{len(self._files)}.json"
            self._files[body].write_bytes(body)
        numbers = (system.port, connections, *times, pause_us)
        command = [self._folder / "load", *map(str, numbers), self._files[body]]
        with _on_core(self._cores[1]):
            return subprocess.Popen(
                [*command, "hold"] if hold else command,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )


@contextmanager
def alone(system: Running, others: list[Running]) -> Iterator[None]:
    """Hold all others still, so that their polls and timers do not share the core."""
    still = [pid for other in others if other is not system for pid in other.pids()]
    send_signal(still, signal.SIGSTOP)
    try:
        yield
    finally:
        send_signal(still, signal.SIGCONT)


@contextmanager
def passing_rig(*, servers: int, cores: tuple[int, int], seconds: float) -> Iterator[Rig]:
    """A rig in a folder that goes away with it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overhead-")))
        rig = Rig(folder=folder, servers=servers, cores=cores, seconds=seconds)
        stack.callback(rig.close)
        yield rig


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """What is started meanwhile stays on this core."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    body = request_body(size=300, streamed=False)
    deadline = time.perf_counter() + _START_S
    trouble = ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            break
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with opener.open(request, timeout=5) as response:
                if response.status == 200:
                    return
        except (OSError, urllib.error.HTTPError) as error:
            trouble = str(error)
        time.sleep(0.1)
    said = log.read_text(errors="replace")[-_LONGEST_ERROR:]
    raise RuntimeError(f"does not answer: {trouble}\n{said}")
