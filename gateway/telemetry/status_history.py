"""The last minutes, for charts: one point every few seconds, kept as the JSON that is sent."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.scheduling.snapshot import SchedulerSnapshot
from gateway.telemetry import metric_definitions as definitions
from gateway.telemetry.json_text import encode_json
from gateway.telemetry.metrics import ServiceLabels, ServiceSeries
from gateway.telemetry.quantiles import quantile

POINTS_KEPT = 450
_WINDOW_POINTS = 15
_TTFT, _TPOT = definitions.TTFT.buckets, definitions.TPOT.buckets


class _Counted:
    """Totals of some series at one instant, or what was added between two."""

    __slots__ = ("ended", "refused", "tpot", "ttft")

    def __init__(
        self, ended: int = 0, refused: int = 0, ttft: Sequence[int] = (), tpot: Sequence[int] = ()
    ) -> None:
        self.ended = ended
        self.refused = refused
        self.ttft = ttft or [0] * (len(_TTFT) + 1)
        self.tpot = tpot or [0] * (len(_TPOT) + 1)

    def plus(self, other: "_Counted", sign: int = 1) -> "_Counted":
        return _Counted(
            self.ended + sign * other.ended,
            self.refused + sign * other.refused,
            [mine + sign * its for mine, its in zip(self.ttft, other.ttft, strict=True)],
            [mine + sign * its for mine, its in zip(self.tpot, other.tpot, strict=True)],
        )


class StatusHistory:
    """Makes the points out of what is counted anyhow, so that requests cost nothing more.

    A point is `{"number", "at", "all", "services", "reasons"}`. `all` and the values of `services`
    are `[ended per second, refused per second, TTFT p50, TTFT p95, TPOT p50, TPOT p95, waiting]`:
    rates since the point before, latencies in seconds over the last 15 points, null where nothing
    ended. `reasons` counts refusals by reason since the point before. The keys of `services`
    are the numbers of `names`; services about which there is nothing to tell are left out.

    Attributes:
        names: [pool, service] of each service by its number.
    """

    def __init__(self) -> None:
        """Start without points."""
        self.names: list[tuple[str, str]] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self._past: list[deque[_Counted]] = []
        """The totals of each service at the last points, oldest first."""
        self._refusals: dict[str, int] = {}
        self._points: deque[bytes] = deque(maxlen=POINTS_KEPT)
        self._last_at: float | None = None
        self._made = 0

    @property
    def made(self) -> int:
        """How many points there have been; the number of the next one."""
        return self._made

    def since(self, number: int) -> bytes:
        """JSON list of the points from that number on, as far as they are kept."""
        missed = min(self._made - number, len(self._points))
        points = self._points
        return b"[%b]" % b",".join([points[n] for n in range(len(points) - missed, len(points))])

    def add(
        self,
        pools: Sequence[SchedulerSnapshot],
        series: Mapping[ServiceLabels, ServiceSeries],
        *,
        at: float,
    ) -> None:
        """Make a point of the state now; `at` is in seconds since 1970-01-01 UTC."""
        elapsed_s = max(0.001, at - self._last_at) if self._last_at is not None else None
        self._last_at = at
        waiting = {
            (pool.pool, queue.service): queue.requests for pool in pools for queue in pool.queues
        }
        totals = self._totals(series)
        services: dict[str, list[float | None]] = {}
        everything = _Counted(), _Counted()
        for key in {**dict.fromkeys(totals), **dict.fromkeys(waiting)}:
            number = self._number(key)
            past = self._past[number]
            total = totals.get(key) or _Counted()
            step = total.plus(past[-1], -1)
            window = total.plus(past[0], -1)
            past.append(total)
            everything = everything[0].plus(step), everything[1].plus(window)
            depth = waiting.get(key, 0)
            if depth or window.ended:
                services[str(number)] = _values(step, window, depth, elapsed_s)
        point: dict[str, Any] = {
            "number": self._made,
            "at": round(at, 1),
            "all": _values(*everything, sum(waiting.values()), elapsed_s),
            "services": services,
            "reasons": self._new_refusals(series),
        }
        self._points.append(encode_json(point))
        self._made += 1

    def _totals(
        self, series: Mapping[ServiceLabels, ServiceSeries]
    ) -> dict[tuple[str, str], _Counted]:
        """Per service, whatever priorities it has had."""
        totals: dict[tuple[str, str], _Counted] = {}
        for (pool, service, _), counted in series.items():
            total = _Counted(
                sum(counted.outcomes.values()),
                sum(counted.refusals.values()),
                counted.ttft.counts,
                counted.tpot.counts,
            )
            before = totals.get((pool, service))
            totals[pool, service] = total if before is None else before.plus(total)
        return totals

    def _number(self, key: tuple[str, str]) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.names)
            self.names.append(key)
            self._past.append(deque([_Counted()], maxlen=_WINDOW_POINTS))
        return number

    def _new_refusals(self, series: Mapping[ServiceLabels, ServiceSeries]) -> dict[str, int]:
        totals: dict[str, int] = {}
        for counted in series.values():
            for reason, count in counted.refusals.items():
                totals[reason] = totals.get(reason, 0) + count
        before, self._refusals = self._refusals, totals
        return {
            reason: count - before.get(reason, 0)
            for reason, count in totals.items()
            if count > before.get(reason, 0)
        }


def _values(
    step: _Counted, window: _Counted, waiting: int, elapsed_s: float | None
) -> list[float | None]:
    return [
        None if elapsed_s is None else round(step.ended / elapsed_s, 2),
        None if elapsed_s is None else round(step.refused / elapsed_s, 2),
        _rounded(quantile(0.5, _TTFT, window.ttft)),
        _rounded(quantile(0.95, _TTFT, window.ttft)),
        _rounded(quantile(0.5, _TPOT, window.tpot)),
        _rounded(quantile(0.95, _TPOT, window.tpot)),
        waiting,
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
