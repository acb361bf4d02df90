"""What is worked out once of a server for all forecasts, until something changes there."""

from typing import Final

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.outlook import NO_GLANCE, NO_OUTLOOK, Glance, Outlook
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.server_timing import ServerTiming

_MOST_INTERFERENCE: Final = 0.8
"""Share of the engine's time that prefills are believed to take at most."""
_MOST_OF_ITS_OWN: Final = 0.25
"""Of a second. A longer prefill holds up those that run with it wherever it goes; if all of it
counted, it had to wait for a server to run empty."""
_A_SECOND_COUNTS: Final = 300.0
"""Mean tokens of the answers there, up to which a second's pace counts in full; where they are
longer, it may be slower in proportion, since they have more time to make up for it."""
_OUTLOOK_KEPT_S: Final = 0.5
"""The rate of prefills is forgotten over seconds, also while nothing happens on a server."""


def look(backend: BackendState, timing: ServerTiming, *, now: float) -> None:
    """Make the server's outlook anew; its glance is made when it is asked for."""
    decode, prefill = timing.decode, timing.prefill
    ttft, tpot = timing.ttft_error, timing.tpot_error
    sequences = backend.decoding + backend.external_running
    base_s = decode.predict(sequences, backend.context_tokens + backend.external_context_tokens)
    room = max(1, int(backend.chunk_budget_tokens - sequences))
    per_token_s = prefill.per_token_s
    share = min(_MOST_INTERFERENCE, per_token_s * timing.prefill_rate(now))
    backend.outlook = tuple.__new__(  # the generated constructor would cost a third of all
        Outlook,
        (
            bool(backend.in_flight) or sequences >= 1.0,
            base_s,
            room,
            decode.per_sequence_s,
            decode.per_context_token_s,
            per_token_s,
            prefill.overhead_s,
            1.0 / (1.0 - share),
            per_token_s * room,
            per_token_s * timing.recent_prefill_rate(now),
            ttft.median_factor,
            ttft.p90_factor,
            ttft.steepness,
            tpot.median_factor,
            tpot.p90_factor,
            tpot.steepness,
            timing.trust,
        ),
    )
    backend.glance = NO_GLANCE
    backend.fresh_until = now + _OUTLOOK_KEPT_S


def glance_of(backend: BackendState) -> Glance:
    """What the server's outlook comes to for a request of average kind."""
    outlook = backend.outlook
    base_s, per_token_s = outlook.base_s, outlook.per_prefill_token_s
    stretch = min(outlook.stretch, 1.0 + outlook.most_interference_s / base_s)
    ttft_per_token_s = (per_token_s + base_s / outlook.room) * outlook.ttft_median
    pending_s = backend.pending_prefill_tokens * ttft_per_token_s
    per_s = stretch * outlook.tpot_median
    return Glance(
        (outlook.overhead_s + base_s) * outlook.ttft_median + pending_s,
        ttft_per_token_s,
        (base_s + outlook.per_sequence_s) * per_s,
        outlook.per_context_token_s * per_s,
        1.0 / stretch,
        per_token_s,
    )


def keeps_pace(
    backend: BackendState,
    prediction: Prediction,
    allowed_s: float,
    bound_s: float,
    *,
    hurries: bool,
) -> bool:
    """Whether a busy server keeps the TPOT bound with the request: on average, and at the moment.

    `allowed_s` is what the forecast of a whole answer may be. The moment does not count against a
    long prompt that `hurries`: for it there may be no better one.
    """
    if prediction.tpot_s > allowed_s:
        return False
    if hurries and prediction.own_prefill_s > _MOST_OF_ITS_OWN:
        return True
    pace_s = _pace_of_the_moment_s(backend.outlook, prediction)
    if pace_s <= bound_s:
        return True
    mean_tokens = backend.expected_output_tokens / max(1, len(backend.in_flight))
    return pace_s * _A_SECOND_COUNTS <= bound_s * mean_tokens


def _pace_of_the_moment_s(outlook: Outlook, prediction: Prediction) -> float:
    """TPOT while the prefills of about a second are done, those of the request with them.

    A short answer has no more time than that: prefills that come together slow it by more than the
    mean of ten seconds tells.
    """
    own_s = prediction.own_prefill_s
    share = outlook.recent_share + (own_s if own_s < _MOST_OF_ITS_OWN else _MOST_OF_ITS_OWN)  # noqa: FURB136 - hot
    share = share if share < _MOST_INTERFERENCE else _MOST_INTERFERENCE  # noqa: FURB136 - hot
    return (outlook.base_s + prediction.own_step_s) * outlook.tpot_median / (1.0 - share)


def pace_s(backend: BackendState) -> float:
    """TPOT at the server as it was last looked at; 0 before. Changes nothing."""
    if backend.glance is NO_GLANCE and backend.outlook is not NO_OUTLOOK:
        return glance_of(backend).tpot_s
    return backend.glance.tpot_s
