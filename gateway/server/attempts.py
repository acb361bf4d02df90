"""Puts one admitted request to servers until one has answered, or nobody will."""

import asyncio
from typing import Final

from gateway.runtime.clock import Clock
from gateway.runtime.scheduler_driver import Lease, NotAdmitted
from gateway.scheduling.decisions import Dispatch, RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import BackendId
from gateway.server.backend_connection import BackendFailure
from gateway.server.backend_directory import BackendDirectory
from gateway.server.client_channel import ClientChannel
from gateway.server.relay import Relay
from gateway.server.request_forwarding import ForwardedRequest
from gateway.server.request_progress import RequestProgress
from gateway.server.response_plan import ResponsePlan
from gateway.telemetry.request_record import Outcome, outcome_of_refusal
from gateway.wire.error_response import (
    ErrorAnswer,
    failure_answer,
    refusal_answer,
    stream_error_event,
)
from gateway.wire.stream_continuation import ResumedStream

_ENDED_BY_US: Final = frozenset({RefusalReason.DEADLINE, RefusalReason.PREEMPTED})
"""Of a request that is stopped: that the client had left is not why."""
_AFTER_FAILURES_S: Final = 1.0
"""When to try again where servers failed: how long the queue is has nothing to do with that."""


class RequestFacts:
    """What the attempts need to know of the request.

    Attributes:
        progress: takes down what happens.
        target: path and query, as the client sent them.
        model: the model name that the client sent.
        expects_finish: see ResponsePlan.
        arrived_at: when its last byte had come.
        common_headers: complete lines for every answer to this request.
        debug_headers: whether to tell the server, the time queued and the forecast.
        deadline_at: when it has to be over, or None.
    """

    __slots__ = (
        "arrived_at",
        "common_headers",
        "deadline_at",
        "debug_headers",
        "expects_finish",
        "model",
        "progress",
        "target",
    )

    def __init__(  # noqa: PLR0913 - one a request, and no named tuple: compiled, that costs more
        self,
        *,
        progress: RequestProgress,
        target: bytes,
        model: str,
        expects_finish: bool,
        arrived_at: float,
        common_headers: bytes,
        debug_headers: bool,
        deadline_at: float | None,
    ) -> None:
        """Take them."""
        self.progress = progress
        self.target = target
        self.model = model
        self.expects_finish = expects_finish
        self.arrived_at = arrived_at
        self.common_headers = common_headers
        self.debug_headers = debug_headers
        self.deadline_at = deadline_at

    def for_rest(self, target: bytes) -> "RequestFacts":
        """The same of the request for the rest of an answer."""
        return RequestFacts(
            progress=self.progress,
            target=target,
            model=self.model,
            expects_finish=True,
            arrived_at=self.arrived_at,
            common_headers=self.common_headers,
            debug_headers=self.debug_headers,
            deadline_at=self.deadline_at,
        )


class Attempts:
    """The tries of one request. `run` has written an answer when it returns."""

    def __init__(
        self,
        *,
        lease: Lease,
        channel: ClientChannel,
        forwarded: ForwardedRequest,
        backends: BackendDirectory,
        facts: RequestFacts,
        clock: Clock,
    ) -> None:
        self._lease = lease
        self._channel = channel
        self._forwarded = forwarded
        self._backends = backends
        self._facts = facts
        self._progress = facts.progress
        self._clock = clock
        self._last_failure: FailureKind | None = None
        self._last_relay: Relay | None = None
        self.broken: FailureKind | None = None
        """How a stream broke that another server may go on with: then nothing was answered yet."""
        self.broke_at: BackendId | None = None
        """Where that was."""

    async def run(self) -> None:
        """Try servers in the order the scheduler says. Cancelling closes the upstream.

        So does the deadline, wherever the request is: waiting for a server, or for its answer.
        """
        deadline_at = self._facts.deadline_at
        try:
            if deadline_at is None:
                while not await self._attempt():
                    pass
                return
            async with asyncio.timeout(deadline_at - self._clock()):
                while not await self._attempt():
                    pass
        except TimeoutError:
            self._stop(RefusalReason.DEADLINE)
        except asyncio.CancelledError:
            refusal = self._lease.given_up()
            if refusal is not None:
                self._stop(refusal.reason, retry_after_s=refusal.retry_after_s)
                return
            # Most often the client has left, and this writes to nobody. If it is still there, it
            # is the gateway that stops.
            self._stop(RefusalReason.DRAINING)
            raise

    async def _attempt(self) -> bool:
        """Make one attempt; return whether the request has been answered."""
        asked_at = self._clock()
        try:
            dispatch = await self._lease.dispatch()
        except NotAdmitted as refusal:
            self._answer_refusal(refusal)
            return True
        resumes = self._forwarded.resumes
        self._progress.dispatched(dispatch, asked_at=asked_at, now=self._clock(), resumes=resumes)
        relay = self._last_relay = self._relay_for(dispatch)
        try:
            failure = await self._exchange(dispatch, relay)
        except asyncio.CancelledError:
            if self._channel.complete:
                # The client left with its whole answer, before we were told of its end.
                self._conclude(relay, relay.failure)
            raise
        self.broke_at = dispatch.backend_id
        return self._conclude(relay, failure)

    def _conclude(self, relay: Relay, failure: FailureKind | None) -> bool:
        """Tell the scheduler how an attempt ended; return whether the request is answered."""
        if failure is None:
            self._finish(relay)
            return True
        self._last_failure = failure
        if relay.unseen:
            self._lease.failed(failure, retryable=True)
            return False
        self._lease.failed(failure, retryable=False)
        if self._channel.started and self._forwarded.answer is not None:
            self.broken = failure
        else:
            self.break_off(failure)
        return True

    def _finish(self, relay: Relay) -> None:
        self._lease.finished(relay.usage, ok=relay.ok)
        self._progress.end(Outcome.OK if relay.ok else Outcome.CLIENT_ERROR)

    def break_off(self, failure: FailureKind) -> None:
        """Tell the client that the rest of its answer will not come."""
        self._progress.end(Outcome.STREAM_ERROR, failure)
        if not self._channel.started:
            self._answer(failure_answer(failure))
        elif self._forwarded.resumes:
            self._end_with_event(failure)
        elif self._last_relay is not None:
            self._last_relay.break_off(failure)

    async def _exchange(self, dispatch: Dispatch, relay: Relay) -> FailureKind | None:
        """Talk to one server; return how it failed, None if it did its part."""
        client = self._backends.client(dispatch.backend_id)
        headers, body = self._forwarded.to_server(dispatch.model, client.authority)
        head = client.compose(b"POST", self._facts.target, headers)
        try:
            await client.exchange(head, body, relay)
        except BackendFailure as failure:
            self._backends.suspect(dispatch.backend_id)
            return failure.kind
        finally:
            # The connection may serve another client next; this one must not pause it then.
            self._channel.feed_from(None)
            self._note(relay)
        return relay.failure

    def _note(self, relay: Relay) -> None:
        progress, answer = self._progress, self._forwarded.answer
        if not self._forwarded.resumes:
            progress.first_token_at = relay.first_token_at
        known = answer is not None and answer.usage.prompt_tokens is not None
        progress.usage = answer.usage if answer is not None and known else relay.usage

    def _answer_refusal(self, refusal: NotAdmitted) -> None:
        reason, retry_after_s = refusal.reason, refusal.retry_after_s
        gave_up_on = self._last_failure if reason is RefusalReason.ATTEMPTS_EXHAUSTED else None
        if gave_up_on is not None and gave_up_on is not FailureKind.OVERLOADED:
            retry_after_s = _AFTER_FAILURES_S
        if self._forwarded.resumes:
            self._progress.end(Outcome.STREAM_ERROR, gave_up_on or reason)
            self._end_with_event(gave_up_on or reason)
            return
        self._progress.end(outcome_of_refusal(reason), gave_up_on or reason)
        if self._last_relay is not None and self._last_relay.held:
            # The server's own words say more than ours.
            self._last_relay.release(retry_after_s=retry_after_s)
        elif gave_up_on is not None:
            self._answer(failure_answer(gave_up_on, retry_after_s=retry_after_s))
        else:
            model = self._facts.model
            self._answer(refusal_answer(reason, retry_after_s=retry_after_s, model=model))

    def _stop(self, reason: RefusalReason, *, retry_after_s: float | None = None) -> None:
        """Tell a client that is still there that its request is given up; not if it has it all."""
        if self._progress.outcome is not None:
            return
        relay = self._last_relay
        if relay is not None and relay.told_all:
            if not self._channel.complete:
                self._channel.write(b"", last=True)
            self._finish(relay)
            return
        outcome = Outcome.STREAM_ERROR if self._channel.started else outcome_of_refusal(reason)
        if not self._channel.started:
            self._answer(refusal_answer(reason, retry_after_s=retry_after_s))
        elif self._forwarded.resumes:
            self._end_with_event(reason)
        elif relay is not None:
            relay.break_off(reason)
        if self._channel.complete or reason in _ENDED_BY_US:
            self._progress.end(outcome, reason)

    def _end_with_event(self, reason: FailureKind | RefusalReason) -> None:
        """End a stream that the client has the beginning of, whichever server that came from."""
        if not self._channel.complete:
            self._channel.write(b"\n\n" + stream_error_event(reason), last=True)

    def _answer(self, answer: ErrorAnswer) -> None:
        id_header = b"x-request-id: %b\r\n" % self._progress.request_id.encode()
        self._channel.send_answer(answer, self._facts.common_headers + id_header)

    def _relay_for(self, dispatch: Dispatch) -> Relay:
        facts, progress = self._facts, self._progress
        if progress.overhead_s is None:
            progress.overhead_s = max(
                0.0, progress.dispatched_at - facts.arrived_at - progress.queued_s
            )
        # To format a number with a point in it costs more than all the rest of the line.
        milliseconds, microseconds = divmod(int(progress.overhead_s * 1e6 + 0.5), 1_000)
        headers = b"%bx-gateway-overhead-ms: %d.%03d\r\n" % (
            facts.common_headers,
            milliseconds,
            microseconds,
        )
        if facts.debug_headers:
            headers += (
                b"x-gateway-server: %b\r\nx-gateway-attempt: %d\r\nx-gateway-queue-ms: %.3f\r\n"
                b"x-gateway-forecast-ttft-ms: %.3f\r\nx-gateway-forecast-tpot-ms: %.3f\r\n"
                % (
                    dispatch.backend_id.encode(),
                    dispatch.attempt,
                    progress.queued_s * 1e3,
                    dispatch.forecast.ttft_s * 1e3,
                    dispatch.forecast.tpot_s * 1e3,
                )
            )
        change = self._forwarded.stream_change()
        plan = ResponsePlan(
            request_id=progress.request_id,
            sent_model=dispatch.model,
            shown_model=facts.model,
            extra_headers=headers,
            expects_finish=facts.expects_finish,
            hides_usage=self._forwarded.hides_usage,
            stream_change=change,
            rest=change if isinstance(change, ResumedStream) else None,
        )
        return Relay(channel=self._channel, lease=self._lease, plan=plan)
