"""What is learned of one request while it is handled, for the record of its end."""

from enum import StrEnum
from typing import Final

from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.model import TokenUsage
from gateway.server.routes import Route
from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.telemetry.token_times import (
    normalised_time_per_token,
    time_per_output_token,
    to_microseconds,
)
from gateway.telemetry.trace_context import TraceContext
from gateway.wire.parsed_request import ParsedRequest

_CLIENT_LEFT: Final = 499
_HANDLER_FAILED: Final = 500
_NOTHING_COUNTED: Final = TokenUsage()


class RequestProgress:
    """Filled in step by step; whatever is not reached stays unknown.

    Attributes:
        request_id: the X-Request-Id.
        lease_id: the gateway's own unique id.
        path: without query.
        key: name of the client's API key.
        started_at, arrived_at: when the request's head, and its whole body, had come.
        trace: the spans' ids, where tracing is on.
        parsed, route: set when the body is understood and its model known.
        dispatch, dispatched_at, attempts: the newest attempt and the number of them.
        continuations: how often another server went on with the answer.
        queued_s: waiting for the scheduler, over all attempts.
        overhead_s: the gateway's own time before the first attempt.
        first_token_at: of the newest attempt.
        usage: token counts of the newest answer.
        outcome, reason: how it ended; None until then.
    """

    __slots__ = (
        "arrived_at",
        "attempts",
        "continuations",
        "dispatch",
        "dispatched_at",
        "first_token_at",
        "key",
        "lease_id",
        "outcome",
        "overhead_s",
        "parsed",
        "path",
        "queued_s",
        "reason",
        "request_id",
        "route",
        "started_at",
        "trace",
        "usage",
    )

    def __init__(self, *, request_id: str, lease_id: str, path: str, started_at: float) -> None:
        self.request_id = request_id
        self.lease_id = lease_id
        self.path = path
        self.started_at = started_at
        self.arrived_at: float | None = None
        self.trace: TraceContext | None = None
        self.key: str | None = None
        self.parsed: ParsedRequest | None = None
        self.route: Route | None = None
        self.dispatch: Dispatch | None = None
        self.dispatched_at = 0.0
        self.attempts = 0
        self.continuations = 0
        self.queued_s = 0.0
        self.overhead_s: float | None = None
        self.first_token_at: float | None = None
        self.usage = TokenUsage()
        self.outcome: Outcome | None = None
        self.reason: StrEnum | None = None

    def end(self, outcome: Outcome, reason: StrEnum | None = None) -> None:
        """Note how the request ended."""
        self.outcome = outcome
        self.reason = reason

    def dispatched(
        self, dispatch: Dispatch, *, asked_at: float, now: float, resumes: bool = False
    ) -> None:
        """Note the scheduler's order, and how long it was waited for.

        If it is for the rest of an answer, what the first server was sent stays what is compared
        with its forecast.
        """
        self.queued_s += now - asked_at
        if resumes:
            self.attempts += 1
            return
        self.dispatch = dispatch
        self.dispatched_at = now
        self.attempts += 1

    def record(self, *, status: int, now: float) -> RequestRecord:
        """Make the record of the ended request; `status` 0 where we answered nothing."""
        # Without an outcome the handler failed; its connection then answers for it.
        outcome = self.outcome or Outcome.FAILED
        if not status:
            status = _HANDLER_FAILED if self.outcome is None else _CLIENT_LEFT
        e2e_s = to_microseconds(now - self.started_at)
        parsed, route, dispatch = self.parsed, self.route, self.dispatch
        usage = _NOTHING_COUNTED if dispatch is None else self.usage
        tokens = None if dispatch is None else self._completion_tokens()
        ttft_s = _between(self.started_at, self.first_token_at)
        tpot_s = time_per_output_token(e2e_s=e2e_s, ttft_s=ttft_s, completion_tokens=tokens)
        ntpot_s = normalised_time_per_token(e2e_s=e2e_s, completion_tokens=tokens)
        # By position: a call with more than 15 keywords goes by way of a dictionary in CPython, and
        # to set the fields one by one costs twice as much.
        return RequestRecord(
            self.lease_id,
            self.request_id,
            self.path,
            outcome,
            status,
            e2e_s,
            self.reason,
            self.key,
            None if route is None else route.pool.pool.name,
            None if route is None else route.service.name,
            None if route is None else route.instead_of,
            None if route is None else route.service.priority,
            None if parsed is None else parsed.model,
            None if dispatch is None else dispatch.model,
            None if dispatch is None else dispatch.backend_id,
            parsed is not None and parsed.streamed,
            self.attempts,
            self.continuations,
            ttft_s,
            to_microseconds(self.queued_s),
            _between(0.0, self.overhead_s),
            usage.prompt_tokens,
            tokens,
            usage.cached_tokens,
            None if dispatch is None else to_microseconds(dispatch.forecast.ttft_s),
            None if dispatch is None else to_microseconds(dispatch.forecast.tpot_s),
            _between(self.dispatched_at, self.first_token_at),
            _between(self.started_at, self.arrived_at),
            None if dispatch is None else _between(self.started_at, self.dispatched_at),
            self.trace,
            None if tpot_s is None else to_microseconds(tpot_s),
            None if ntpot_s is None else to_microseconds(ntpot_s),
        )

    def _completion_tokens(self) -> int | None:
        """As the server told, or estimated from the events of a stream that told nothing."""
        usage, route = self.usage, self.route
        if usage.completion_tokens is not None or not usage.events or route is None:
            return usage.completion_tokens
        return route.pool.driver.tokens_of_events(route.service.name, usage.events)


def _between(begin: float, end: float | None) -> float | None:
    """Seconds from one instant to another, if there was one."""
    return None if end is None else to_microseconds(end - begin)
