"""Puts one admitted request to servers until one has answered, or nobody will."""

import asyncio
from typing import NamedTuple

from gateway.runtime.clock import Clock
from gateway.runtime.scheduler_driver import Lease, NotAdmitted
from gateway.scheduling.decisions import Dispatch, RefusalReason
from gateway.scheduling.events import FailureKind
from gateway.scheduling.model import BackendId
from gateway.server.backend_connection import BackendFailure
from gateway.server.backend_directory import BackendDirectory
from gateway.server.client_channel import ClientChannel
from gateway.server.relay import Relay, ResponsePlan
from gateway.server.request_forwarding import ForwardedRequest
from gateway.wire.error_response import ErrorAnswer, failure_answer, refusal_answer


class RequestFacts(NamedTuple):
    """What the attempts need to know of the request.

    Attributes:
        request_id: the X-Request-Id of this request.
        target: path and query, as the client sent them.
        model: the model name that the client sent.
        expects_finish: see ResponsePlan.
        arrived_at: when its last byte had come.
        common_headers: complete lines for every answer to this request.
        debug_headers: whether to tell the server, the time queued and the forecast.
    """

    request_id: str
    target: bytes
    model: str
    expects_finish: bool
    arrived_at: float
    common_headers: bytes
    debug_headers: bool


class Attempts:
    """The tries of one request. `run` has written an answer when it returns.

    Attributes:
        backend_id: the server that was tried last, or None.
    """

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
        self._clock = clock
        self._queued_s = 0.0
        self._overhead_s = 0.0
        self._last_failure: FailureKind | None = None
        self._held: Relay | None = None
        self.backend_id: BackendId | None = None

    async def run(self) -> None:
        """Try servers in the order the scheduler says. Cancelling closes the upstream."""
        while True:
            asked_at = self._clock()
            try:
                dispatch = await self._lease.dispatch()
            except NotAdmitted as refusal:
                self._answer_refusal(refusal)
                return
            self._queued_s += self._clock() - asked_at
            self.backend_id = dispatch.backend_id
            relay = self._relay_for(dispatch)
            try:
                failure = await self._exchange(dispatch, relay)
            except asyncio.CancelledError:
                # Where the client is still there, it is the gateway that stops.
                relay.break_off(RefusalReason.DRAINING)
                raise
            if failure is None:
                self._lease.finished(relay.usage, ok=relay.ok)
                return
            retryable = relay.unseen
            self._last_failure = failure
            self._held = relay if relay.held else None
            self._lease.failed(failure, retryable=retryable)
            if not retryable:
                if self._channel.started:
                    relay.break_off(failure)
                else:
                    self._answer_failure(failure)
                return

    async def _exchange(self, dispatch: Dispatch, relay: Relay) -> FailureKind | None:
        """Make one attempt; return how it failed, None if the server did its part."""
        client = self._backends.client(dispatch.backend_id)
        headers, body = self._forwarded.to_server(dispatch.model, client.authority)
        request = client.compose(b"POST", self._facts.target, headers, body)
        try:
            await client.exchange(request, relay)
        except BackendFailure as failure:
            self._backends.suspect(dispatch.backend_id)
            return failure.kind
        finally:
            self._channel.feed_from(None)
        return relay.failure

    def _answer_refusal(self, refusal: NotAdmitted) -> None:
        if self._held is not None:
            # The server's own words say more than ours.
            self._held.release(retry_after_s=refusal.retry_after_s)
            return
        if refusal.reason is RefusalReason.ATTEMPTS_EXHAUSTED and self._last_failure is not None:
            self._answer_failure(self._last_failure, retry_after_s=refusal.retry_after_s)
            return
        self._answer(
            refusal_answer(
                refusal.reason, retry_after_s=refusal.retry_after_s, model=self._facts.model
            )
        )

    def _answer_failure(self, kind: FailureKind, *, retry_after_s: float | None = None) -> None:
        self._answer(failure_answer(kind, retry_after_s=retry_after_s))

    def _answer(self, answer: ErrorAnswer) -> None:
        facts = self._facts
        id_header = b"x-request-id: %b\r\n" % facts.request_id.encode()
        self._channel.send_answer(answer, facts.common_headers + id_header)

    def _relay_for(self, dispatch: Dispatch) -> Relay:
        facts = self._facts
        if dispatch.attempt == 1:
            self._overhead_s = max(0.0, self._clock() - facts.arrived_at - self._queued_s)
        headers = b"%bx-gateway-overhead-ms: %.3f\r\n" % (
            facts.common_headers,
            self._overhead_s * 1e3,
        )
        if facts.debug_headers:
            headers += (
                b"x-gateway-server: %b\r\nx-gateway-attempt: %d\r\nx-gateway-queue-ms: %.3f\r\n"
                b"x-gateway-forecast-ttft-ms: %.3f\r\nx-gateway-forecast-tpot-ms: %.3f\r\n"
                % (
                    dispatch.backend_id.encode(),
                    dispatch.attempt,
                    self._queued_s * 1e3,
                    dispatch.forecast.ttft_s * 1e3,
                    dispatch.forecast.tpot_s * 1e3,
                )
            )
        plan = ResponsePlan(
            request_id=facts.request_id,
            sent_model=dispatch.model,
            shown_model=facts.model,
            extra_headers=headers,
            expects_finish=facts.expects_finish,
            hides_usage=self._forwarded.hides_usage,
        )
        return Relay(channel=self._channel, lease=self._lease, clock=self._clock, plan=plan)
