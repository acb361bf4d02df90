"""The last dispatches with the table that each was chosen from, bounded."""

from collections import OrderedDict
from typing import Final

from gateway.scheduling.backend_picker import Choice
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import ClosedReason
from gateway.scheduling.model import BackendId, Forecast, RequestId
from gateway.scheduling.snapshot import ClosedServer, Explanation
from gateway.scheduling.tracked_request import TrackedRequest

_KEPT: Final = 2_560
"""More than the requests that telemetry keeps, so that each of those that is looked up has one."""

_Entry = tuple[
    float,
    float,
    int,
    str,
    str,
    str | None,
    int,
    int,
    BackendId,
    Forecast,
    Choice,
    tuple[BackendState, ...],
    dict[BackendId, ClosedReason],
]


class Explanations:
    """Keeps references on the hot path and makes the readable form when it is asked for.

    Not the request itself: to free all that hangs on it, when nobody has touched it for long, would
    cost as much as a quarter of a decision.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._entries: OrderedDict[RequestId, _Entry] = OrderedDict()

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
        assert tracked.told is not None, "a dispatch has a forecast"
        assert tracked.backend_id is not None, "a dispatch has a server"
        entries = self._entries
        if len(entries) >= _KEPT:
            entries.popitem(last=False)
        entries[tracked.request.id] = (
            now,
            tracked.arrived_at,
            tracked.attempts,
            tracked.service.name,
            tracked.target,
            tracked.adapter,
            tracked.prompt_tokens,
            tracked.expected_output_tokens,
            tracked.backend_id,
            tracked.told,
            choice,
            serving,
            closed,
        )

    def find(self, request_id: RequestId) -> Explanation | None:
        """The newest attempt of the request, or None."""
        entry = self._entries.get(request_id)
        if entry is None:
            return None
        (
            decided_at,
            arrived_at,
            attempt,
            service,
            target,
            adapter,
            prompt_tokens,
            expected_output_tokens,
            chosen,
            forecast,
            choice,
            serving,
            closed,
        ) = entry
        candidates = choice.candidates
        compared = {candidate.backend_id for candidate in candidates}
        return Explanation(
            request_id=request_id,
            decided_at=decided_at,
            waited_s=decided_at - arrived_at,
            attempt=attempt,
            service=service,
            target=target,
            adapter=adapter,
            prompt_tokens=prompt_tokens,
            expected_output_tokens=expected_output_tokens,
            chosen=chosen,
            forecast=forecast,
            candidates=candidates,
            closed=tuple(
                ClosedServer(b.id, closed.get(b.id, ClosedReason.NOT_COMPARED))
                for b in serving
                if b.id not in compared
            ),
        )
