"""What is measured of each system, and with which load."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.overhead.programs import request_body
from benchmarks.overhead.rig import Loaded, Rig, Running

Figures = dict[str, float]

_PLAIN = request_body(size=1_000, streamed=False)
_STREAMED = request_body(size=1_000, streamed=True, chunks=10)
_PACED = request_body(size=1_000, streamed=True, chunks=100, interval_us=20_000)
_FAST = request_body(size=1_000, streamed=True, chunks=200, interval_us=10_000)
_BODY_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_STREAMS = 256
_STREAMS_OF_SLOW = 16
_STREAMS_BESIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure.

    Attributes:
        name: key of the results.
        take: makes the figures of one system in one round.
        of_slow: whether systems that are slow by far take part.
        fresh: the system is started anew for it, and it is taken in the first round only.
    """

    name: str
    take: Callable[[Rig, Running], Figures]
    of_slow: bool = False
    fresh: bool = False


def _requests(rig: Rig, system: Running) -> Figures:
    """Answers in one piece over 64 connections, as fast as they come."""
    return _rate(rig.load(system, body=_PLAIN, connections=64))


def _latency(rig: Rig, system: Running) -> Figures:
    """One connection: the time that is added."""
    loaded = rig.load(system, body=_PLAIN, connections=1, seconds=rig.seconds * 0.6)
    return {"p50_us": loaded.at("latency_us", "p50"), "p99_us": loaded.at("latency_us", "p99")}


def _streams(rig: Rig, system: Running) -> Figures:
    """Streams of 10 chunks over 64 connections, as fast as they come."""
    return _rate(rig.load(system, body=_STREAMED, connections=64))


def _chunks(rig: Rig, system: Running) -> Figures:
    """256 streams of 50 chunks a second."""
    streams = _STREAMS_OF_SLOW if system.slow else _STREAMS
    loaded = rig.load(system, body=_PACED, connections=streams, warm_up_s=1.0)
    return _paced(loaded, streams * 50)


def _fast_chunks(rig: Rig, system: Running) -> Figures:
    """256 streams of 100 chunks a second: 25,600 chunks a second."""
    return _paced(rig.load(system, body=_FAST, connections=_STREAMS, warm_up_s=0.8), _STREAMS * 100)


def _bodies(rig: Rig, system: Running) -> Figures:
    """One connection, bodies of 1 kB to 1 MB."""
    figures = {}
    for size in _BODY_SIZES:
        body = request_body(size=size, streamed=False)
        loaded = rig.load(system, body=body, connections=1, seconds=0.4, warm_up_s=0.1)
        figures[f"p50_us_{size}"] = loaded.at("latency_us", "p50")
        figures[f"cpu_us_{size}"] = loaded.cpu_us_per("responses")
    return figures


def _beside_large(rig: Rig, system: Running) -> Figures:
    """64 paced streams while another client sends bodies of 1 MB, 20 a second."""
    large = request_body(size=1_000_000, streamed=False)
    with rig.beside(system, body=large, pause_us=50_000):
        loaded = rig.load(system, body=_PACED, connections=_STREAMS_BESIDE, warm_up_s=0.5)
    return _paced(loaded, _STREAMS_BESIDE * 50)


def _held(streams: int) -> Callable[[Rig, Running], Figures]:
    def held(rig: Rig, system: Running) -> Figures:
        """Open streams, one chunk a second each."""
        return rig.hold(system, streams=streams)

    return held


MEASURES = (
    Measure(name="requests", take=_requests, of_slow=True),
    Measure(name="latency", take=_latency, of_slow=True),
    Measure(name="streams", take=_streams, of_slow=True),
    Measure(name="chunks", take=_chunks, of_slow=True),
    Measure(name="fast_chunks", take=_fast_chunks),
    Measure(name="bodies", take=_bodies),
    Measure(name="beside_large", take=_beside_large),
    Measure(name="streams_2000", take=_held(2_000), fresh=True),
    Measure(name="streams_9000", take=_held(9_000), fresh=True),
)


def _rate(loaded: Loaded) -> Figures:
    return {
        "per_s": loaded.per_second("responses"),
        "cpu_us": loaded.cpu_us_per("responses"),
        "p50_us": loaded.at("latency_us", "p50"),
        "p99_us": loaded.at("latency_us", "p99"),
        "errors": loaded.count("errors"),
    }


def _paced(loaded: Loaded, wanted_per_s: float) -> Figures:
    return {
        "cpu_us": loaded.cpu_us_per("chunks"),
        "core": loaded.cpu_s / loaded.seconds,
        "delivered": loaded.per_second("chunks") / wanted_per_s,
        "late_p50_us": loaded.at("late_us", "p50"),
        "late_p99_us": loaded.at("late_us", "p99"),
        "gap_p99_us": loaded.at("gap_us", "p99"),
        "errors": loaded.count("errors"),
    }
