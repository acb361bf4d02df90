"""What is worked out once of a server for all forecasts, until something changes there."""

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.outlook import NO_GLANCE, NO_OUTLOOK, Glance, Outlook
from gateway.scheduling.server_timing import ServerTiming

_MOST_INTERFERENCE = 0.8
"""Share of the engine's time that prefills are believed to take at most."""
_OUTLOOK_KEPT_S = 0.5
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


def pace_s(backend: BackendState) -> float:
    """TPOT at the server as it was last looked at; 0 before. Changes nothing."""
    if backend.glance is NO_GLANCE and backend.outlook is not NO_OUTLOOK:
        return glance_of(backend).tpot_s
    return backend.glance.tpot_s
