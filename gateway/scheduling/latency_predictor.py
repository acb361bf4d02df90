"""TTFT and TPOT of this request on this server, before it is sent there.

TTFT: the engine prefills first come first served in steps of bounded size, so a first token waits
for the rest of the step under way, for the prefills ahead, and for its own. TPOT: the step time
with the request added, stretched by the prefills that will share its steps. The coefficients are
learned per server (step_time.py), from the mean of its pool's; what the formulas leave over is
followed as a bias and a spread (forecast_error.py).
"""

from math import log
from typing import Final

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.forecast_error import ForecastError
from gateway.scheduling.model import BackendId, Forecast
from gateway.scheduling.outlook import NEVER, NO_GLANCE, Glance
from gateway.scheduling.pool_timings import PoolTimings
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.server_outlook import glance_of, look
from gateway.scheduling.server_timing import ServerTiming
from gateway.scheduling.step_time import StepTimePrior
from gateway.scheduling.told_spread import ToldSpread
from gateway.scheduling.tracked_request import TrackedRequest

_REACHES_ENGINE: Final = 0.6
"""Share of the fixed overhead that passes before the engine's scheduler sees a request."""
_LONGEST_REPORT_S: Final = 2.0
"""Reports of progress further apart than this are not compared: the server was idle between."""


class LatencyPredictor:
    """Forecasts from the ledger's aggregates, O(1) per server; learns from what happened."""

    def __init__(self, *, prior: StepTimePrior) -> None:
        """Start from `prior` for every server."""
        self._timings = PoolTimings(prior=prior)
        self._told_spread = ToldSpread(prior.spread)

    def timing(self, backend_id: BackendId) -> ServerTiming:
        """What is known of the server's speed; of one without samples, the mean of the others."""
        return self._timings.of(backend_id)

    def known_timing(self, backend_id: BackendId) -> ServerTiming | None:
        """What is known of the server's speed, or None: to look does not fix its start."""
        return self._timings.find(backend_id)

    def forget(self, backend_id: BackendId) -> None:
        """Drop what is known of a server that is gone for good."""
        self._timings.forget(backend_id)

    def predict(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> Prediction:
        """Predict a request's times on a server, with the request added to what runs there.

        TTFT counts from `now`.
        """
        if now >= backend.fresh_until:
            self._look(backend, now)
        timing = self._timings.of(backend.id)
        (
            busy,
            base_s,
            room,
            per_sequence_s,
            per_context_token_s,
            per_token_s,
            overhead_s,
            stretch,
            most_interference_s,
            _,
            ttft_median,
            ttft_p90,
            ttft_steepness,
            tpot_median,
            tpot_p90,
            tpot_steepness,
            _,
        ) = backend.outlook
        request = tracked.request
        own = backend.uncached_tokens(tracked) if request.prefix_blocks else tracked.prompt_tokens
        if busy:
            reaches_at = now + _REACHES_ENGINE * overhead_s
            elapsed_s, steps, tokens = timing.queue.ahead_of(
                own, reaches_at, base_s, per_token_s, room
            )
        else:
            elapsed_s, steps, tokens = 0.0, -(-own // room), own
        stepping_s = steps * base_s - elapsed_s
        raw_ttft_s = overhead_s + per_token_s * tokens
        if stepping_s > 0.0:
            raw_ttft_s += stepping_s
        target = tracked.target
        cold = target in backend.lora_models and not backend.adapters.is_resident(target)
        if cold:
            raw_ttft_s += timing.adapter_load_s
        after_s = (
            base_s
            + per_sequence_s * request.choices
            + per_context_token_s * (tracked.prompt_tokens + tracked.expected_output_tokens / 2)
        )
        stretched_s, most_s = after_s * stretch, after_s + most_interference_s
        raw_tpot_s = stretched_s if stretched_s < most_s else most_s  # noqa: FURB136 - hot
        return Prediction(
            raw_ttft_s * ttft_median,
            raw_ttft_s * ttft_p90,
            raw_tpot_s * tpot_median,
            raw_tpot_s * tpot_p90,
            raw_ttft_s,
            raw_tpot_s,
            stepping_s,
            tokens,
            own,
            per_token_s * own,
            after_s - base_s,
            cold,
            ttft_steepness,
            tpot_steepness,
        )

    def told(self, backend: BackendState, prediction: Prediction) -> Forecast:
        """What is told of a prediction: its TPOT drawn towards what comes out there.

        Decisions are made by the prediction: where they do not react, servers drift apart.
        """
        timing = self.timing(backend.id)
        tpot_s = timing.blend.tell_s(prediction.raw_tpot_s)
        p90_s = tpot_s * self._told_spread.p90_factor(len(backend.in_flight))
        return Forecast(prediction.ttft_s, prediction.ttft_p90_s, tpot_s, p90_s)

    def glance(self, backend: BackendState, *, now: float) -> Glance:
        """What is to be expected of a server at first sight."""
        if now >= backend.fresh_until:
            self._look(backend, now)
        if backend.glance is NO_GLANCE:
            backend.glance = glance_of(backend)
        return backend.glance

    def _look(self, backend: BackendState, now: float) -> None:
        timing = self.timing(backend.id)
        if timing.unknown and not backend.in_flight:
            timing = self._timings.restarted(backend.id, now=now)
        look(backend, timing, now=now)

    def is_known(self, backend_id: BackendId) -> bool:
        """Whether enough was learned of the server to judge what it can never do."""
        timing = self._timings.find(backend_id)
        return timing is not None and timing.is_known

    def alone_s(self, backend: BackendState, tracked: TrackedRequest) -> tuple[float, float]:
        """(TTFT, TPOT) the request would have on this server if it were idle."""
        timing = self.timing(backend.id)
        room = max(1, backend.chunk_budget_tokens)
        own = backend.uncached_tokens(tracked)
        step_s = timing.decode.predict(
            tracked.request.choices, tracked.prompt_tokens + tracked.expected_output_tokens / 2
        )
        ttft_s = (
            timing.prefill.overhead_s
            + -(-own // room) * timing.decode.step_s
            + timing.prefill.per_token_s * own
        )
        return ttft_s, step_s

    def dispatched(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """The request goes to the server now; call it before the ledger reserves."""
        backend.fresh_until = NEVER
        timing = self.timing(backend.id)
        busy = bool(backend.in_flight) or backend.external_running >= 1.0
        timing.queue.add(tracked.uncached_tokens, now=now, busy=busy)
        timing.count_prefill(tracked.uncached_tokens, now=now)
        tracked.ahead = len(backend.in_flight)
        self._told_spread.note_load(tracked.ahead)

    def withdrawn(self, backend: BackendState, tracked: TrackedRequest) -> None:
        """The request left the server before its first token."""
        self.timing(backend.id).queue.remove(tracked.uncached_tokens)

    def chunk_seen(self, backend: BackendState, at: float) -> None:
        """A chunk of any stream of the server arrived: one of its steps ended."""
        timing = self._timings.find(backend.id)
        if timing is None:
            return
        queue = timing.queue
        if queue.in_step or queue.after:
            outlook = backend.outlook
            queue.chunk_seen(
                at,
                base_s=outlook.base_s,
                per_token_s=outlook.per_prefill_token_s,
                room=outlook.room,
            )
        elif at > queue.step_began_at:
            queue.step_began_at = at

    def first_token(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """Learn a TTFT; call it after the ledger ended the prefill."""
        backend.fresh_until = NEVER
        timing = self.timing(backend.id)
        self.chunk_seen(backend, now)
        timing.queue.first_token_seen(
            backend.pending_prefill_tokens, now=now, room=backend.outlook.room
        )
        prediction = tracked.prediction
        actual_s = now - tracked.dispatched_at
        if prediction is None or actual_s <= 0.0:
            return
        if tracked.dispatched_at < timing.changed_at:
            _judge_ttft(timing.ttft_error, prediction, actual_s)
            return
        if prediction.cold_adapter:
            timing.learn_adapter_load(actual_s - (prediction.raw_ttft_s - timing.adapter_load_s))
        else:
            timing.prefill.learn(
                tokens=prediction.prefill_tokens,
                seconds=actual_s - prediction.stepping_s,
                measured_s=actual_s,
            )
        _learn_ttft(timing.ttft_error, prediction, actual_s)

    def gave_up(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """Learn a censored TTFT: no first token had come by now."""
        prediction = tracked.prediction
        waited_s = now - tracked.dispatched_at
        if prediction is not None and waited_s > prediction.ttft_s:
            backend.fresh_until = NEVER
            _learn_ttft(self.timing(backend.id).ttft_error, prediction, waited_s)

    def progressed(
        self,
        backend: BackendState,
        *,
        streams: int,
        tokens: float,
        last_chunk_at: float,
    ) -> None:
        """Learn the step time from one interval between two reports.

        Args:
            backend: the server, its ledger entry brought up to date.
            streams: streams that decoded all through the interval.
            tokens: output tokens of them together, per choice.
            last_chunk_at: arrival of the server's newest chunk.
        """
        backend.fresh_until = NEVER
        timing = self.timing(backend.id)
        before = timing.report
        sequences = backend.decoding + backend.external_running
        context = float(backend.context_tokens + backend.external_context_tokens)
        timing.report = (last_chunk_at, sequences, context)
        prefilled = max(0, timing.queue.taken - timing.taken_reported)
        timing.taken_reported = timing.queue.taken
        if before is None or not streams or tokens < streams:
            return
        span_s = last_chunk_at - before[0]
        if not 0.0 < span_s < _LONGEST_REPORT_S:
            return
        steps = tokens / streams
        timing.learn_steps(
            sequences=(sequences + before[1]) / 2,
            context_tokens=(context + before[2]) / 2,
            step_s=span_s / steps,
            prefill_tokens=prefilled / steps,
            at=last_chunk_at,
        )

    def finished(self, backend: BackendState, tracked: TrackedRequest, tpot_s: float) -> None:
        """Learn the TPOT of a complete answer, > 0."""
        prediction, told = tracked.prediction, tracked.told
        if prediction is None or told is None:
            return
        backend.fresh_until = NEVER
        timing = self.timing(backend.id)
        timing.told_error.judge(forecast_s=told.tpot_s, p90_s=told.tpot_p90_s, actual_s=tpot_s)
        if tracked.dispatched_at < timing.changed_at or timing.outran(prediction, tpot_s):
            return
        in_flight, off = len(backend.in_flight), log(tpot_s / told.tpot_s)
        self._told_spread.learn(
            requests=tracked.ahead, off=off, under_way=in_flight * len(self._timings)
        )
        timing.tpot_error.learn(
            raw_s=prediction.raw_tpot_s,
            forecast_s=prediction.tpot_s,
            p90_s=prediction.tpot_p90_s,
            actual_s=tpot_s,
        )
        timing.blend.learn(raw_s=prediction.raw_tpot_s, actual_s=tpot_s, in_flight=in_flight)


def _judge_ttft(error: ForecastError, prediction: Prediction, actual_s: float) -> None:
    error.judge(forecast_s=prediction.ttft_s, p90_s=prediction.ttft_p90_s, actual_s=actual_s)


def _learn_ttft(error: ForecastError, prediction: Prediction, actual_s: float) -> None:
    error.learn(
        raw_s=prediction.raw_ttft_s,
        forecast_s=prediction.ttft_s,
        p90_s=prediction.ttft_p90_s,
        actual_s=actual_s,
    )
