"""The breakers of a pool: who is ejected, who is to be probed, and when that goes too far.

The result is written to each server's ledger entry, where a decision reads it at no cost.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.breaker import Breaker, Circuit
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import BackendId
from gateway.scheduling.policy import BreakerPolicy
from gateway.scheduling.tracked_request import TrackedRequest

_TICK_S: Final = 1.0
"""How often the chance of failure of a server that gets no requests is lowered."""
_HANGS: Final = frozenset({FailureKind.STALLED, FailureKind.UNRESPONSIVE})
"""One of these is enough: they took long to find out, and hit all that is there."""
_CHANGES_KEPT: Final = 256
_PACE_EWMA: Final = 0.1
_PACE_SAMPLES: Final = 20
"""Answers before a server's pace is compared with that of others."""


class HealthChange(NamedTuple):
    """A server's circuit changed; `reason` is for people. `backend_id` None tells of the pool."""

    backend_id: BackendId | None
    state: str
    reason: str


class BreakerState(NamedTuple):
    """What a snapshot shows of one server's breaker; `failures` are totals by kind."""

    circuit: Circuit
    ejections: int
    failures: dict[str, int]


class _Server:
    __slots__ = ("breaker", "failures", "pace_s", "paces")

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.failures: dict[str, int] = {}
        self.pace_s = 0.0
        self.paces = 0


class Breakers:
    """One breaker per server, and the bound on how many may be open.

    Attributes:
        next_at: when `advance` is due; infinite while nothing is wrong.
        opens_at: when the next ejected server may be probed.
        reopened: whether a server has become usable again, or can be waited for no longer, since
            the scheduler cleared this.
        panic: whether more servers than allowed are ejected, so that all of them are used.
    """

    def __init__(self, *, ledger: BackendLedger) -> None:
        """Watch the servers of `ledger`; `reconfigure` sets other bounds than the usual ones."""
        self._ledger = ledger
        self._policy = BreakerPolicy()
        self._servers: dict[BackendId, _Server] = {}
        self.next_at = float("inf")
        self.opens_at = float("inf")
        self.reopened = False
        self.panic = False
        self._changes: deque[HealthChange] = deque(maxlen=_CHANGES_KEPT)

    def reconfigure(self, policy: BreakerPolicy) -> None:
        """Judge by other bounds from now on; what is open stays so until its time."""
        self._policy = policy
        self._publish()

    def take_changes(self) -> Sequence[HealthChange]:
        """What happened since the last call, for the log."""
        if not self._changes:
            return ()
        changes = tuple(self._changes)
        self._changes.clear()
        return changes

    def state_of(self, backend: BackendState) -> BreakerState:
        """What can be told of one server."""
        server = self._of(backend)
        breaker = server.breaker
        return BreakerState(breaker.circuit, breaker.ejections, dict(server.failures))

    def dispatched(self, backend: BackendState, tracked: TrackedRequest) -> None:
        """A request goes there; to a half-open server it goes as the probe."""
        if backend.probe_due:
            self._of(backend).breaker.probe = tracked.request.id
            self._publish()

    def answered(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """The first token of a stream came."""
        breaker = self._of(backend).breaker
        before = breaker.circuit
        breaker.answered(dispatched_at=tracked.dispatched_at, now=now)
        self._note(backend, before, now)

    def completed(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """An answer is complete."""
        breaker = self._of(backend).breaker
        before = breaker.circuit
        breaker.completed(dispatched_at=tracked.dispatched_at, now=now)
        self._note(backend, before, now)

    def failed(
        self, backend: BackendState, tracked: TrackedRequest, kind: FailureKind, *, now: float
    ) -> None:
        """A request failed there."""
        server = self._of(backend)
        server.failures[kind.value] = server.failures.get(kind.value, 0) + 1
        before = server.breaker.circuit
        server.breaker.failed(self._policy, dispatched_at=tracked.dispatched_at, now=now)
        if kind in _HANGS and server.breaker.circuit is Circuit.CLOSED:
            server.breaker.trip(self._policy, "it hangs", now=now)
        backend.failure_rate = server.breaker.failure_rate(now)
        self.next_at = min(self.next_at, now + _TICK_S)
        self._note(backend, before, now)

    def ended(self, backend: BackendState, tracked: TrackedRequest) -> None:
        """A request is no longer there; a probe that told nothing is followed by another."""
        if backend.ejected:
            breaker = self._of(backend).breaker
            if breaker.probe == tracked.request.id:
                breaker.probe = None
                self._publish()

    def paced(self, backend: BackendState, seconds_per_token: float, *, now: float) -> None:
        """Note the pace of an answer; a server far slower than the others is ejected."""
        server = self._of(backend)
        server.paces += 1
        weight = max(_PACE_EWMA, 1.0 / server.paces)
        server.pace_s += weight * (seconds_per_token - server.pace_s)
        factor = self._policy.slow_factor
        if not factor or server.paces % _PACE_SAMPLES or server.breaker.circuit != Circuit.CLOSED:
            return
        others = [
            other.pace_s
            for backend_id, other in self._servers.items()
            if other is not server and other.paces >= _PACE_SAMPLES and self._is_usable(backend_id)
        ]
        if len(others) >= 2 and server.pace_s > factor * median(others):
            times = server.pace_s / median(others)
            server.paces = 0
            server.breaker.trip(self._policy, f"{times:.0f} times as slow as others", now=now)
            self._note(backend, Circuit.CLOSED, now)

    def joined(self, backend: BackendState, *, now: float) -> None:
        """A server is up; one that was ejected before is probed at once."""
        breaker = self._of(backend).breaker
        before = breaker.circuit
        if before is Circuit.OPEN:
            breaker.half_open()
            self._note(backend, before, now)
        self._publish()

    def forget(self, backend_id: BackendId) -> None:
        """Drop what is known of a server that is gone for good."""
        self._servers.pop(backend_id, None)

    def closed(self) -> None:
        """A server left or drains: the share of those ejected has changed."""
        self._publish()

    def advance(self, now: float) -> None:
        """Let time pass: open circuits become half open, and old failures are forgotten."""
        self.next_at = self.opens_at = float("inf")
        for backend in self._ledger.backends:
            breaker = self._of(backend).breaker
            if breaker.open_until <= now:
                breaker.half_open()
                self._note(backend, Circuit.OPEN, now)
            self._opens_at(breaker.open_until)
            if backend.failure_rate:
                backend.failure_rate = breaker.failure_rate(now)
                self.next_at = min(self.next_at, now + _TICK_S)

    def _of(self, backend: BackendState) -> _Server:
        server = self._servers.get(backend.id)
        if server is None:
            server = self._servers[backend.id] = _Server()
        return server

    def _is_usable(self, backend_id: BackendId) -> bool:
        backend = self._ledger.get(backend_id)
        return backend is not None and backend.usable

    def _note(self, backend: BackendState, before: Circuit, now: float) -> None:
        """Publish a change, and tell it."""
        breaker = self._servers[backend.id].breaker
        self._opens_at(breaker.open_until)
        if breaker.circuit is before:
            return
        reason = breaker.reason
        if breaker.circuit is Circuit.OPEN:
            reason = f"{reason}; nothing new for {breaker.open_until - now:.1f} s"
        elif breaker.circuit is Circuit.CLOSED:
            backend.failure_rate = 0.0
        self._changes.append(HealthChange(backend.id, breaker.circuit, reason))
        self._publish()

    def _opens_at(self, instant: float) -> None:
        self.opens_at = min(self.opens_at, instant)
        self.next_at = min(self.next_at, instant)

    def _publish(self) -> None:
        """Write to every server whether it is ejected and whether it is to be probed."""
        usable = [
            (backend, self._of(backend).breaker)
            for backend in self._ledger.backends
            if backend.usable and not backend.draining
        ]
        shut = sum(breaker.circuit is not Circuit.CLOSED for _, breaker in usable)
        panic = shut > self._policy.max_ejected_share * len(usable)
        if panic is not self.panic:
            self.panic = panic
            told = f"{shut} of {len(usable)} servers are ejected"
            self._changes.append(HealthChange(None, "panic" if panic else "calm", told))
        self._ledger.probes_due = False
        for backend, breaker in usable:
            ejected = breaker.shut and not panic
            if backend.ejected is not ejected:
                self.reopened = True
            backend.ejected = ejected
            backend.probe_due = breaker.awaits_probe
            self._ledger.probes_due |= backend.probe_due
