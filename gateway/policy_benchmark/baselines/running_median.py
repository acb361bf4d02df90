"""`running_median`: a predictor to compare ours with; it forecasts each server's own median.

Requests go where an inner policy sends them; the forecast of TTFT (from dispatch) and TPOT is the
median, and as p90 the 90th percentile, of the server's last 101 finished ones.
"""

from bisect import bisect, insort
from collections import deque
from collections.abc import Sequence

from gateway.policy_benchmark.baselines.immediate_dispatch import ImmediateDispatch
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import FirstTokenReceived, ResponseFinished, SchedulerEvent
from gateway.scheduling.model import BackendId, Forecast, RequestId

WINDOW = 101


class _Window:
    """The last values, and the same ones sorted."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        self._recent.append(value)
        insort(self._sorted, value)
        if len(self._recent) > WINDOW:
            del self._sorted[bisect(self._sorted, self._recent.popleft()) - 1]

    def quantile(self, probability: float) -> float:
        """Nearest rank from below; 0.0 without values."""
        count = len(self._sorted)
        return self._sorted[int(probability * (count - 1))] if count else 0.0


class _Sent:
    __slots__ = ("at", "backend_id", "first_at")

    def __init__(self, backend_id: BackendId, at: float) -> None:
        self.backend_id = backend_id
        self.at = at
        self.first_at: float | None = None


class RunningMedian:
    """Adds forecasts to an inner policy's decisions."""

    def __init__(self, inner: ImmediateDispatch) -> None:
        """Route as `inner` does."""
        self._inner = inner
        self._ttft: dict[BackendId, _Window] = {}
        self._tpot: dict[BackendId, _Window] = {}
        self._sent: dict[RequestId, _Sent] = {}

    def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
        """Learn from the event, then add forecasts to what the inner policy decides."""
        if isinstance(event, FirstTokenReceived):
            sent = self._sent[event.request_id]
            sent.first_at = now
            self._ttft.setdefault(sent.backend_id, _Window()).add(now - sent.at)
        elif isinstance(event, ResponseFinished):
            sent = self._sent.pop(event.request_id)
            tokens = event.usage.completion_tokens or 0
            if sent.first_at is not None and tokens > 1:
                tpot_s = (now - sent.first_at) / (tokens - 1)
                self._tpot.setdefault(sent.backend_id, _Window()).add(tpot_s)
        return [self._forecast(d, now) for d in self._inner.handle(event, now=now)]

    def next_deadline(self) -> None:
        """Nothing ever waits."""
        return

    def _forecast(self, decision: Decision, now: float) -> Decision:
        if not isinstance(decision, Dispatch):
            self._sent.pop(decision.request_id, None)
            return decision
        backend_id = decision.backend_id
        self._sent[decision.request_id] = _Sent(backend_id, now)
        ttft = self._ttft.get(backend_id, _Window())
        tpot = self._tpot.get(backend_id, _Window())
        forecast = Forecast(
            ttft.quantile(0.5), ttft.quantile(0.9), tpot.quantile(0.5), tpot.quantile(0.9)
        )
        return Dispatch(decision.request_id, backend_id, decision.model, forecast, decision.attempt)
