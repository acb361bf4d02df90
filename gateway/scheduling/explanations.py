"""The last dispatches with the table that each was chosen from, bounded."""

from collections import OrderedDict
from typing import Final

from gateway.scheduling.backend_picker import Choice, table_of
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import ClosedReason
from gateway.scheduling.model import BackendId, RequestId
from gateway.scheduling.snapshot import ClosedServer, Explanation
from gateway.scheduling.tracked_request import TrackedRequest

_KEPT: Final = 2_560
"""More than the requests that telemetry keeps, so that each of those that is looked up has one."""


class _Dispatched:
    """What is kept of one dispatch: figures of the request, and what its server was chosen from.

    Not the request itself: to free all that hangs on it, when nobody has touched it for long, would
    cost as much as a quarter of a decision.
    """

    __slots__ = (
        "adapter",
        "arrived_at",
        "attempt",
        "backend_id",
        "closed",
        "compared",
        "decided_at",
        "expected_output_tokens",
        "figures",
        "prompt_tokens",
        "service",
        "serving",
        "target",
        "told",
    )

    def __init__(
        self,
        tracked: TrackedRequest,
        choice: Choice,
        serving: tuple[BackendState, ...],
        closed: dict[BackendId, ClosedReason],
        decided_at: float,
    ) -> None:
        assert tracked.told is not None, "a dispatch has a forecast"
        assert tracked.backend_id is not None, "a dispatch has a server"
        self.decided_at = decided_at
        self.arrived_at = tracked.arrived_at
        self.attempt = tracked.attempts
        self.service = tracked.service.name
        self.target = tracked.target
        self.adapter = tracked.adapter
        self.prompt_tokens = tracked.prompt_tokens
        self.expected_output_tokens = tracked.expected_output_tokens
        self.backend_id = tracked.backend_id
        self.told = tracked.told
        self.compared = [server.backend for server in choice.servers]
        self.figures = choice.figures
        self.serving = serving
        self.closed = closed


class Explanations:
    """Keeps references on the hot path and makes the readable form when it is asked for."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: OrderedDict[RequestId, _Dispatched] = OrderedDict()

    def keep(
        self,
        tracked: TrackedRequest,
        choice: Choice,
        serving: tuple[BackendState, ...],
        closed: dict[BackendId, ClosedReason],
        now: float,
    ) -> None:
        """Remember one dispatch.

        Of `serving`, those not in `choice` were closed, by the reason in `closed` or because
        they were not looked at. The oldest is dropped when 2,560 are kept.
        """
        entries = self._entries
        if len(entries) >= _KEPT:
            entries.popitem(last=False)
        entries[tracked.request.id] = _Dispatched(tracked, choice, serving, closed, now)

    def find(self, request_id: RequestId) -> Explanation | None:
        """The newest attempt of the request, or None."""
        kept = self._entries.get(request_id)
        if kept is None:
            return None
        compared = {backend.id for backend in kept.compared}
        return Explanation(
            request_id=request_id,
            decided_at=kept.decided_at,
            waited_s=kept.decided_at - kept.arrived_at,
            attempt=kept.attempt,
            service=kept.service,
            target=kept.target,
            adapter=kept.adapter,
            prompt_tokens=kept.prompt_tokens,
            expected_output_tokens=kept.expected_output_tokens,
            chosen=kept.backend_id,
            forecast=kept.told,
            candidates=table_of(kept.compared, kept.figures, kept.adapter),
            closed=tuple(
                ClosedServer(b.id, kept.closed.get(b.id, ClosedReason.NOT_COMPARED))
                for b in kept.serving
                if b.id not in compared
            ),
        )
