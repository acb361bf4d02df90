"""Whose turn it is: the next waiting request to be served, and the servers open for it.

A head that does not fit now does not hold up the others; one that was overtaken is protected: what
is left of the servers it waits for is kept from less entitled ones, and an adapter may be let
drain for it.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Final

from gateway.scheduling.admission_queue import (
    LAST_LANE,
    LATE,
    NON_CRITICAL,
    ON_TIME,
    AdmissionQueue,
    Lane,
    lane_of,
)
from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import OpenServer, is_held
from gateway.scheduling.model import is_critical
from gateway.scheduling.prefix_home import have_room, home_of, not_left_to_others
from gateway.scheduling.scheduler_parts import Rules
from gateway.scheduling.tracked_request import TrackedRequest

_MOST_OVERTAKEN: Final = 1
_HEADS_WATCHED: Final = 8
_FEW: Final = 12
"""Up to so many servers, all get a full forecast."""
_ENOUGH: Final = 8
"""Open servers that are compared when there are more."""
_LARGE_SHARE: Final = 0.25


def is_kept(backend: BackendState, entitled: Sequence[TrackedRequest]) -> bool:
    """Whether one of those that go first will be able to use what is left of the server."""
    return any(
        backend.takes(head.target)
        and not backend.failed(head)
        and backend.has_slot_for(head.target)
        and not is_held(backend, head)
        and not _is_large(backend, head)
        and (head.home is None or head.home == backend.id)
        for head in entitled
    )


def _not_kept(
    backends: Sequence[BackendState],
    head: TrackedRequest,
    entitled: Sequence[TrackedRequest],
    left: Sequence[BackendState],
) -> tuple[BackendState, ...]:
    """Those that serve the head's model and are not for others."""
    return tuple(
        b
        for b in backends
        if b.takes(head.target) and b not in left and not (entitled and is_kept(b, entitled))
    )


def _is_large(backend: BackendState, head: TrackedRequest) -> bool:
    """Whether so much would have to drain for it that the others had better go on meanwhile."""
    kv_tokens = backend.kv_capacity_tokens
    needed = head.prompt_tokens + head.expected_output_tokens
    return kv_tokens is not None and needed > _LARGE_SHARE * kv_tokens


class Turns:
    """Order of service over all lanes."""

    def __init__(self, *, queue: AdmissionQueue, ledger: BackendLedger, rules: Rules) -> None:
        """Look at `queue` and `ledger`; compare by `rules`."""
        self._queue = queue
        self._ledger = ledger
        self._rules = rules
        self._late_credit_tokens = 0.0

    def reconfigure(self, rules: Rules) -> None:
        """Compare by other rules from now on."""
        self._rules = rules

    def open_for(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> list[OpenServer]:
        """Those of `backends` that may take the request now, and that it need not spare."""
        return self._unspared(tracked, self._able(tracked, backends, now=now))

    def _unspared(self, tracked: TrackedRequest, servers: list[OpenServer]) -> list[OpenServer]:
        """Those of `servers` that the request need not leave to others.

        While the server that holds its prompt can be waited for, others that are near their limit
        are left to those whose prompts they hold.
        """
        if not servers or not tracked.request.prefix_blocks:
            return servers
        margin = self._rules.capacity.margin_of(tracked)
        if have_room(tracked, servers, margin=margin):
            return servers
        if not self._queue.requests:
            tracked.home = home_of(tracked, self._ledger.serving(tracked.target))
        home = None if tracked.home is None else self._ledger.get(tracked.home)
        if home is None or home.ejected or not home.takes(tracked.target) or home.failed(tracked):
            return servers
        return not_left_to_others(tracked, servers, home, margin=margin)

    def _able(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> list[OpenServer]:
        """Those of `backends` that may take the request now and that it has not tried.

        One that is to be probed is to be had alone, by a request that no server has failed yet. Of
        many servers, full forecasts are made until there are enough to choose from.
        """
        if tracked.tried:
            backends = [backend for backend in backends if not backend.failed(tracked)]
        rules = self._rules
        late = not is_critical(tracked.service.priority) and self._late_wait()
        if self._ledger.probes_due and not tracked.tried:
            due = [backend for backend in backends if backend.probe_due]
            servers = rules.capacity.open_among(tracked, due, now=now, behind_late=late)
            if servers:
                return servers
        if len(backends) <= _FEW or rules.shortlist is None:
            return rules.capacity.open_among(tracked, backends, now=now, behind_late=late)
        for best_first in rules.shortlist.batches(tracked, backends, now=now):
            servers = rules.capacity.open_among(
                tracked, best_first, now=now, enough=_ENOUGH, behind_late=late
            )
            if servers:
                return servers
        return []

    def open_to_arrival(
        self, tracked: TrackedRequest, backends: Sequence[BackendState], *, now: float
    ) -> list[OpenServer]:
        """Those that an arrival may take before the ones that wait and are not less entitled.

        They were not open to them, but an arrival that takes its place goes before them.
        """
        if not self._queue.requests:
            return self.open_for(tracked, backends, now=now)
        before = self._not_less_entitled(tracked)
        behind = self._rules.order.goes_behind(tracked, now=now)
        entitled = [
            head
            for head in before
            if self.keeps_servers(head)
            or (behind and not head.late and head.service.name != tracked.service.name)
        ]
        entitled += self._late_before(lane_of(tracked))
        if entitled:
            backends = [backend for backend in backends if not is_kept(backend, entitled)]
        servers = self.open_for(tracked, backends, now=now)
        own = lane_of(tracked)
        if any(head.home is not None and lane_of(head) > own for head in before):
            margin = self._rules.capacity.margin_of(tracked)
            servers = [s for s in servers if have_room(tracked, (s,), margin=margin)]
        return servers

    def overtakes(self, tracked: TrackedRequest, servers: Sequence[OpenServer]) -> None:
        """An arrival is about to take one of `servers` before some that wait: count it."""
        self._note_overtaken(
            [
                head
                for head in self._not_less_entitled(tracked)
                if any(server.backend.takes(head.target) for server in servers)
            ]
        )

    def _not_less_entitled(self, tracked: TrackedRequest) -> list[TrackedRequest]:
        """The heads in the lane of a request, and in those before it."""
        own = lane_of(tracked)
        return [
            head for lane in self._queue.lanes() if lane >= own for head in self._queue.heads(lane)
        ]

    def next_dispatch(
        self,
        changed: Sequence[BackendState],
        surfaced: Sequence[TrackedRequest],
        *,
        least: Lane = LAST_LANE,
        now: float,
    ) -> tuple[TrackedRequest | None, list[OpenServer]]:
        """The next head to be served and the servers open for it; heads in order of entitlement.

        Only heads in `least` and the lanes before it are looked at: those in `surfaced` are
        compared with every server, the others with those that `changed`. A head that was
        overtaken too often keeps the later ones off the servers it waits for. What the heads of a
        lane leave to others of it is not for the lanes behind.
        """
        passed: list[Iterable[TrackedRequest]] = []
        entitled: list[TrackedRequest] = []
        left: list[BackendState] = []
        spared: list[BackendState] = []

        def servers_for(head: TrackedRequest) -> list[OpenServer]:
            takers = self._ledger.serving(head.target) if head in surfaced else changed
            able = self._able(head, _not_kept(takers, head, entitled, left), now=now)
            servers = self._unspared(head, able)
            if len(servers) < len(able):
                spared.extend(server.backend for server in able if server not in servers)
            return servers

        for lane in self._lanes() if changed or surfaced else ():
            if lane < least:
                continue
            left += spared
            entitled += self._late_before(lane)
            heads = self._queue.heads(lane)
            order = iter(self._rules.order.ordered(heads, now=now))
            in_vain: list[TrackedRequest] = []
            passed += (in_vain, order)
            for head in order:
                servers = servers_for(head)
                if servers:
                    self._note_overtaken(list(islice(chain(*passed[:-1]), _HEADS_WATCHED)))
                    return head, servers
                in_vain.append(head)
                if self.keeps_servers(head):
                    entitled.append(head)
                # To order them all costs more than to see that none of the others fits either.
                if len(in_vain) == 1 and not any(map(servers_for, heads)):
                    entitled += [h for h in heads if h is not head and self.keeps_servers(h)]
                    break
        return None, []

    def charge(self, tracked: TrackedRequest) -> None:
        """Let late requests earn their share of the tokens dispatched, and spend it."""
        if not self._queue.requests:
            return
        tokens = float(tracked.prompt_tokens + tracked.expected_output_tokens)
        if tracked.late:
            self._late_credit_tokens -= tokens
        elif is_critical(tracked.service.priority):
            earned = self._rules.policy.fairness.late_share * tokens
            self._late_credit_tokens = min(tokens, self._late_credit_tokens + earned)

    def keeps_servers(self, tracked: TrackedRequest) -> bool:
        """Whether less entitled ones are kept off the servers that the request waits for."""
        return tracked.overtaken >= _MOST_OVERTAKEN and not tracked.late

    def _late_wait(self) -> bool:
        """Whether late Critical requests wait."""
        return any(lane[0] == LATE for lane in self._queue.lanes())

    def _late_before(self, lane: Lane) -> list[TrackedRequest]:
        """Late heads that keep the servers they wait for from a lane of Non-Critical requests.

        They do while other Critical ones that could use those servers still wait in time: there,
        Critical requests are then too many even alone, and what a Non-Critical one got would be
        missed by one that is refused in the end.
        """
        lanes = self._queue.lanes()
        if lane[0] != NON_CRITICAL or lanes[0][0] != ON_TIME:
            return []
        heads = self._queue.heads
        in_time = {head.target for each in lanes if each[0] == ON_TIME for head in heads(each)}
        return [
            head
            for each in lanes
            if each[0] == LATE
            for head in heads(each)
            if head.target in in_time or self._shares_servers(head, in_time)
        ]

    def _shares_servers(self, head: TrackedRequest, targets: Iterable[str]) -> bool:
        """Whether a server of the head's has another one of `targets`, too."""
        return any(
            backend.takes(target)
            for backend in self._ledger.serving(head.target)
            for target in targets
        )

    def leaves_servers(self, tracked: TrackedRequest) -> bool:
        """Whether lanes behind may be kept off servers that the request leaves to others of its."""
        return tracked.home is not None and len(self._queue.lanes()) > 1

    def detains(self, tracked: TrackedRequest) -> bool:
        """Whether servers may open to others once the request waits no longer."""
        if self.keeps_servers(tracked) or self.leaves_servers(tracked):
            return True
        if not is_critical(tracked.service.priority):
            return False
        last = self._queue.lanes()[-1]
        return (tracked.late and last[0] == NON_CRITICAL) or bool(self._late_before(last))

    def end_hold(self, tracked: TrackedRequest) -> None:
        """Free the server that was kept for a request which no longer waits for it."""
        if tracked.held_at is not None:
            backend = self._ledger.get(tracked.held_at)
            assert backend is not None, f"{tracked!r} holds a server that never joined"
            tracked.held_at = None
            backend.hold = None

    def _lanes(self) -> list[Lane]:
        """Lanes in order of service: late ones first only while they have credit."""
        lanes = self._queue.lanes()
        if self._late_credit_tokens > 0.0:
            lanes.sort(key=lambda lane: lane[0] == LATE, reverse=True)
        return lanes

    def _note_overtaken(self, passed: Sequence[TrackedRequest]) -> None:
        """Count it; let an adapter drain for the first who waits for a slot for too long."""
        for head in passed[:_HEADS_WATCHED]:
            head.overtaken += 1
        for head in passed[:_HEADS_WATCHED]:
            if head.held_at is None and self.keeps_servers(head):
                serving = self._ledger.serving(head.target)
                held = self._rules.capacity.place_hold(head, serving)
                if held is not None:
                    head.held_at = held.id
                    return
