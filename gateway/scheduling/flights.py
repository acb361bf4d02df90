"""A request on a server, from its reservation to its release: counted, charged, learned from."""

from typing import Final

from gateway.scheduling import events as ev
from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.breakers import Breakers
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.events import FailureKind
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.miss_risk import miss_probability
from gateway.scheduling.model import BackendId, Forecast, LLMService, ServiceName, TokenUsage
from gateway.scheduling.slo_adherence import SloAdherence
from gateway.scheduling.token_estimates import TokenEstimates
from gateway.scheduling.tracked_request import TrackedRequest

_GAPS_OF_A_PACE: Final = 8.0
"""Tokens after the first from which an answer tells how fast its server is."""


class Flights:
    """Keeps ledger, predictor, breakers, estimates and adherence in step over a request's life."""

    def __init__(
        self,
        *,
        ledger: BackendLedger,
        predictor: LatencyPredictor,
        breakers: Breakers,
        estimates: TokenEstimates,
        adherence: SloAdherence,
    ) -> None:
        """Take what is to be kept in step."""
        self._ledger = ledger
        self._predictor = predictor
        self._breakers = breakers
        self._estimates = estimates
        self._adherence = adherence

    def backend_of(self, tracked: TrackedRequest) -> BackendState:
        """The server of a request in flight."""
        backend = None if tracked.backend_id is None else self._ledger.get(tracked.backend_id)
        assert backend is not None, f"{tracked!r} is in flight nowhere"
        return backend

    def chunks_seen(self, last_chunks: tuple[tuple[BackendId, float], ...]) -> None:
        """Take in when the newest chunk of some servers arrived."""
        find, chunk_seen = self._ledger.get, self._predictor.chunk_seen
        for backend_id, at in last_chunks:
            backend = find(backend_id)
            if backend is not None:
                chunk_seen(backend, at)

    def forget_removed(self, *, now: float) -> None:
        """Drop what is known of servers that are gone for good and long enough."""
        for backend_id in self._ledger.forget_removed(now=now):
            self._predictor.forget(backend_id)
            self._breakers.forget(backend_id)

    def begin(self, tracked: TrackedRequest, server: OpenServer, *, now: float) -> Forecast:
        """Reserve the server, and charge the service with the chance of a miss.

        Returns what is told of its times.
        """
        backend, prediction = server.backend, server.prediction
        tracked.attempts += 1
        tracked.tried = (*tracked.tried, (backend.id, backend.lives))
        tracked.prediction = prediction
        tracked.told = told = self._predictor.told(backend, prediction)
        tracked.uncached_tokens = prediction.uncached_tokens
        self._predictor.dispatched(backend, tracked, now=now)
        self._ledger.reserve(backend, tracked, now=now)
        self._breakers.dispatched(backend, tracked)
        self._adherence.dispatched(tracked, miss_probability(tracked, prediction, now=now))
        return told

    def first_token(self, tracked: TrackedRequest, *, now: float) -> BackendState:
        """Its prefill is over; a bound on TTFT is kept or missed. Returns its server."""
        tracked.first_token_at = now
        backend = self.backend_of(tracked)
        self._ledger.end_prefill(backend, tracked)
        self._predictor.first_token(backend, tracked, now=now)
        self._breakers.answered(backend, tracked, now=now)
        objective = tracked.service.objective
        ttft_s = None if objective is None else objective.ttft_s
        if ttft_s is not None and now - tracked.arrived_at > ttft_s:
            self._adherence.settle(tracked, missed=True, now=now)
        return backend

    def progressed(self, backend: BackendState, event: ev.ResponseProgressed) -> int:
        """Take in how far the streams of a server are; returns how many are not in flight."""
        self._predictor.chunk_seen(backend, event.last_chunk_at)
        unknown = streams = all_grown = 0
        grown = 0.0
        in_flight = backend.in_flight
        service: LLMService | None = None
        tokens_per_event = 1.0
        for request_id, stream_events in event.progress:  # the hottest loop: once per stream
            tracked = in_flight.get(request_id)
            if tracked is None:
                unknown += 1
                continue
            if tracked.service is not service:
                service = tracked.service
                tokens_per_event = self._estimates.tokens_per_event(service.name)
            before = tracked.output_tokens
            tokens = int(stream_events * tokens_per_event + 0.5)
            if before:
                streams += 1
                grown += (tokens - before) / tracked.choices
            if tokens > before:
                if tracked.prefill_pending:
                    self._ledger.end_prefill(backend, tracked)
                tracked.output_tokens = tokens
                all_grown += tokens - before
        backend.context_tokens += all_grown
        self._predictor.progressed(
            backend, streams=streams, tokens=grown, last_chunk_at=event.last_chunk_at
        )
        return unknown

    def reported(self, backend: BackendState, event: ev.BackendLoadReported, *, now: float) -> None:
        """Take in one scrape; what is not streamed progresses with it, as forecast."""
        self._ledger.report(backend, event.load, taken_at=event.taken_at)
        self._ledger.progress_unseen(backend, now=now)

    def tokens_of_events(self, service: ServiceName, events: int) -> int:
        """Output tokens that so many stream events of a service stand for."""
        return self._estimates.tokens_of_events(service, events)

    def completed(self, tracked: TrackedRequest, usage: TokenUsage, *, now: float) -> int:
        """Judge and learn from a complete answer; returns its tokens."""
        tokens = self._learn_answer(tracked, usage, now)
        self._breakers.completed(self.backend_of(tracked), tracked, now=now)
        objective = tracked.service.objective
        first_at = tracked.first_token_at
        met = objective is None or objective.is_met(
            ttft_s=None if first_at is None else first_at - tracked.arrived_at,
            e2e_s=now - tracked.arrived_at,
            output_tokens=tokens,
        )
        self._adherence.settle(tracked, missed=not met, now=now)
        return tokens

    def failed(self, tracked: TrackedRequest, kind: FailureKind, *, now: float) -> BackendState:
        """The server failed it: that counts against the server. Releases and returns it."""
        self._breakers.failed(self.backend_of(tracked), tracked, kind, now=now)
        return self.end(tracked, now=now)

    def end(self, tracked: TrackedRequest, *, now: float) -> BackendState:
        """Release the server, whether or not the answer is complete; returns it."""
        backend = self.backend_of(tracked)
        if tracked.prefill_pending:
            self._predictor.withdrawn(backend, tracked)
            self._predictor.gave_up(backend, tracked, now=now)
        self._adherence.withdrawn(tracked)
        self._breakers.ended(backend, tracked)
        self._ledger.release(backend, tracked, now=now)
        return backend

    def _learn_answer(self, tracked: TrackedRequest, usage: TokenUsage, now: float) -> int:
        """Learn token counts, and the pace."""
        self._estimates.learn(tracked.request, usage)
        tokens = usage.completion_tokens or self._estimates.tokens_of_events(
            tracked.service.name, usage.events
        )
        gaps = tokens / tracked.request.choices - 1.0
        began_at = tracked.first_token_at
        if began_at is None and tracked.prediction is not None:
            began_at = tracked.dispatched_at + tracked.prediction.ttft_s
        if gaps >= 1.0 and began_at is not None and now > began_at:
            backend, gap_s = self.backend_of(tracked), (now - began_at) / gaps
            self._predictor.finished(backend, tracked, gap_s)
            if tracked.first_token_at is not None and gaps >= _GAPS_OF_A_PACE:
                self._breakers.paced(backend, gap_s, now=now)
        return tokens
