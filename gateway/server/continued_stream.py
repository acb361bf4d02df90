"""Goes on, on other servers, with a stream that broke after the client had some of it."""

from collections.abc import Callable
from http import HTTPStatus

from msgspec.structs import replace

from gateway.runtime.clock import Clock
from gateway.runtime.patient_timeout import PatientTimeout
from gateway.scheduling.model import BackendId, InferenceRequest
from gateway.server.attempts import Attempts, RequestFacts
from gateway.server.backend_connection import BackendFailure
from gateway.server.client_channel import ClientChannel
from gateway.server.request_forwarding import ForwardedRequest
from gateway.server.routes import ServingPool
from gateway.telemetry.request_record import Outcome
from gateway.wire.detokenization import DETOKENIZE_PATH, detokenize_request, detokenized
from gateway.wire.parsed_request import ParsedRequest
from gateway.wire.stream_continuation import RESUME_PATH

_MOST_BREAKS = 3
"""A request that kills its servers must not reach all of them."""
_TEXT_S = 2.0
"""For a server to tell the text of some tokens: most of them do nothing else for it."""


class ContinuedStream:
    """The rest of one answer. Each continuation is a request of its own to the scheduler."""

    def __init__(
        self,
        *,
        pool: ServingPool,
        channel: ClientChannel,
        forwarded: ForwardedRequest,
        facts: RequestFacts,
        clock: Clock,
        describe: Callable[[ParsedRequest, str], InferenceRequest],
    ) -> None:
        """`describe` makes the scheduler's view of a request, with a lease id of its own."""
        self._pool = pool
        self._channel = channel
        self._forwarded = forwarded
        self._facts = facts.for_rest(RESUME_PATH.encode())
        self._progress = facts.progress
        self._clock = clock
        self._describe = describe

    async def run(self, attempts: Attempts) -> None:
        """Go on until the answer is whole, or tell the client that it never will be."""
        broke_at: tuple[BackendId, ...] = ()
        while attempts.broken is not None:
            resumed = await self._rest()
            if resumed is None:
                if not self._end():
                    attempts.break_off(attempts.broken)
                return
            self._progress.continuations += 1
            number = self._progress.continuations
            if attempts.broke_at is not None:
                broke_at = (*broke_at, attempts.broke_at)
            request = replace(
                self._describe(resumed.parsed, f"{self._progress.lease_id}-{number}"),
                broke_at=broke_at,
            )
            async with self._pool.driver.lease(request) as lease:
                attempts = Attempts(
                    lease=lease,
                    channel=self._channel,
                    forwarded=resumed,
                    backends=self._pool.backends,
                    facts=self._facts,
                    clock=self._clock,
                )
                await attempts.run()

    async def _rest(self) -> ForwardedRequest | None:
        """The request for what is missing; None if it cannot be had from another server."""
        answer = self._forwarded.answer
        assert answer is not None
        answer.broke()
        if answer.breaks > _MOST_BREAKS:
            return None
        while (tail := answer.doubtful_tail()) is not None:
            answer.judge_tail(await self._text_of(tail))
        body = answer.resumed_request(self._longest())
        return None if body is None else self._forwarded.resumed(body)

    def _end(self) -> bool:
        """Send the end of an answer that is whole but for it; whether it was."""
        answer = self._forwarded.answer
        assert answer is not None
        ending = answer.ending(self._longest())
        if ending is None:
            return False
        self._channel.write(ending, last=True)
        self._progress.end(Outcome.OK)
        return True

    async def _text_of(self, ids: list[int]) -> str | None:
        """The text of token ids as the first server that can tell tells it; None if none can."""
        dispatch = self._progress.dispatch
        assert dispatch is not None
        request = detokenize_request(dispatch.model, ids)
        for client in self._pool.backends.usable_clients():
            try:
                async with PatientTimeout(_TEXT_S):
                    page = await client.fetch(DETOKENIZE_PATH, request)
            except (BackendFailure, TimeoutError):
                continue
            text = detokenized(page.body) if page.status == HTTPStatus.OK else None
            if text is not None:
                return text
        return None

    def _longest(self) -> int | None:
        """Tokens that prompt and answer may have together."""
        dispatch = self._progress.dispatch
        served = None if dispatch is None else self._pool.backends.served(dispatch.model)
        return None if served is None else served.max_model_len
