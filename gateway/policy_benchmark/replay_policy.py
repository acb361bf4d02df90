"""What another policy would have chosen, decision by decision, on the facts of a journal.

The other policy lives its own course: where it would have sent a request is where it counts it,
until the fact that ended it. Facts about requests that it refused are kept from it; a request that
it still queues when the recorded one ends is cancelled there.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import orjson

from gateway.policy_benchmark.policies import PolicyContext, find_policy
from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import (
    DispatchFailed,
    FirstTokenReceived,
    RequestArrived,
    RequestCancelled,
    ResponseFinished,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, RequestId
from gateway.simulator.fleet_model import FleetPolicy
from gateway.telemetry.journal import JournalEntry, read_journal

PREFILL_RATE = 40_000.0
"""Tokens per second assumed of a live server (an 8B model on an H100)."""


class PolicyDifference(NamedTuple):
    """One request that was decided differently at one line of the journal.

    `recorded` and `other` are such as `dispatch s1` or `evict queue_timeout`; `-` is no decision.
    """

    line: int
    request_id: str
    recorded: str
    other: str

    def __str__(self) -> str:
        """One line for the user, without the journal's name."""
        return f"{self.line}: request {self.request_id}: {self.recorded}; other: {self.other}"


def replay_policy(journal: Path, policy: str) -> Iterator[PolicyDifference]:
    """Feed a journal's facts to another policy; yield every decision that differs.

    Raises:
        JournalError: not a journal, or a broken line.
        BenchmarkError: unknown policy, or one that needs simulated engines.
    """
    header, entries = read_journal(journal)
    per_server = header.policy.capacity.max_requests_per_backend
    other = find_policy(policy).build(
        PolicyContext(
            policy=header.policy,
            rng=Random(header.seed),
            limits=defaultdict[BackendId, int](lambda: per_server),
            prefill_rate=PREFILL_RATE,
        )
    )
    course = _Course(other)
    for entry in entries:
        yield from _differences(entry, course.feed(entry.event, entry.at))


class _Course:
    """The other policy, and which requests it queues or has dispatched."""

    def __init__(self, policy: FleetPolicy) -> None:
        self._policy = policy
        self._dispatched: set[RequestId] = set()
        self._queued: set[RequestId] = set()

    def feed(self, event: SchedulerEvent, at: float) -> Sequence[Decision]:
        own = self._own(event)
        if own is None:
            return ()
        decisions = self._policy.handle(own, now=at)
        for decision in decisions:
            self._queued.discard(decision.request_id)
            if isinstance(decision, Dispatch):
                self._dispatched.add(decision.request_id)
            else:
                self._dispatched.discard(decision.request_id)
        return decisions

    def _own(self, event: SchedulerEvent) -> SchedulerEvent | None:
        """The event as it concerns the other policy; None if it does not."""
        match event:
            case RequestArrived():
                self._queued.add(event.request.id)
            case FirstTokenReceived():
                return event if event.request_id in self._dispatched else None
            case ResponseProgressed():
                known = tuple(pair for pair in event.progress if pair[0] in self._dispatched)
                return ResponseProgressed(event.backend_id, known, event.last_chunk_at)
            case ResponseFinished() | RequestCancelled() | DispatchFailed():
                return self._ended(event)
            case _:
                pass
        return event

    def _ended(
        self, event: ResponseFinished | RequestCancelled | DispatchFailed
    ) -> SchedulerEvent | None:
        request_id = event.request_id
        again = isinstance(event, DispatchFailed) and event.retryable
        if request_id in self._dispatched:
            self._dispatched.discard(request_id)
            if again:
                self._queued.add(request_id)
            return event
        if request_id in self._queued and not again:
            self._queued.discard(request_id)
            return RequestCancelled(request_id)
        return None


def _differences(entry: JournalEntry, decisions: Sequence[Decision]) -> Iterator[PolicyDifference]:
    recorded = {
        fields["request_id"]: _shown(kind, fields.get("backend_id") or fields.get("reason"))
        for kind, fields in orjson.loads(entry.decisions)
    }
    other = {
        str(d.request_id): _shown(
            type(d).__name__, d.backend_id if isinstance(d, Dispatch) else d.reason
        )
        for d in decisions
    }
    for request_id in {**recorded, **other}:
        was, would_be = recorded.get(request_id, "-"), other.get(request_id, "-")
        if was != would_be:
            yield PolicyDifference(entry.line, request_id, was, would_be)


def _shown(kind: str, what: object) -> str:
    return f"{kind.lower()} {what}"
