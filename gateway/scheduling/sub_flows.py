"""Whose request of one service goes next: the clients' own flows share the service evenly.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over hashed flows (stochastic fairness queueing,
McKenney 1990): a flow's next request starts at the later of the end of its last one and the virtual
time of its service, which is the start of the one served last. Idle flows bank nothing.
"""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from gateway.scheduling.model import ServiceName
from gateway.scheduling.tracked_request import NO_FLOW, TrackedRequest

_FLOWS: Final = 64
"""More would cost more per decision; clients that share a flow share what it gets."""
_TOKENS_PER_OUTPUT: Final = 2


def flow_of(fairness_id: str | None) -> int:
    """The flow of a client's fairness id, from 1 to 64, or NO_FLOW; the same in every process."""
    return NO_FLOW if fairness_id is None else 1 + crc32(fairness_id.encode()) % _FLOWS


class SubFlows:
    """Virtual times of the flows of every service."""

    def __init__(self) -> None:
        """Start with nothing served."""
        self._ends: dict[tuple[ServiceName, int], float] = {}
        self._virtual_times: dict[ServiceName, float] = {}

    def served(self, tracked: TrackedRequest) -> None:
        """Charge a dispatch: 1 per token of the prompt, 2 per expected token of the answer."""
        name = tracked.service.name
        started_at = self._start_of(tracked)
        cost = tracked.prompt_tokens + _TOKENS_PER_OUTPUT * tracked.expected_output_tokens
        self._ends[name, tracked.sub_flow] = started_at + cost
        self._virtual_times[name] = started_at

    def in_turn(self, heads: Sequence[TrackedRequest]) -> list[TrackedRequest]:
        """Heads of one service, the one first whose flow has had least."""
        return sorted(heads, key=lambda h: (self._start_of(h), h.arrived_at, h.sequence))

    def _start_of(self, tracked: TrackedRequest) -> float:
        name = tracked.service.name
        end = self._ends.get((name, tracked.sub_flow), 0.0)
        return max(end, self._virtual_times.get(name, 0.0))
