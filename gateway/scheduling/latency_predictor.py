"""TTFT and TPOT of this request on this server, before it is sent there.

A step of a vLLM engine takes about `c0 + c1*B + c2*C + c3*P` seconds: B running sequences, C
tokens of context in the batch, P tokens of prefill in the step (fitted on measured servers within
3.5 %; sources in docs/benchmarks.md). Chunked prefill spreads pending prompts over steps of at
most `chunk_budget_tokens`.
"""

from dataclasses import dataclass
from math import ceil

from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.model import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeModel:
    """Coefficients of an engine's step time, seconds per unit.

    The defaults are one analytic prior for every engine: an 8B model on a current data-centre
    GPU, between the fastest and slowest published fits.

    Attributes:
        overhead_s: API and network time of a request outside the engine's steps.
        step_s, per_sequence_s, per_context_token_s, per_prefill_token_s: c0, c1, c2, c3.
        lora_factor: factor on a step that runs any adapter.
        adapter_load_s: time to load an adapter that is not resident.
        chunk_budget_tokens: max_num_batched_tokens, vLLM's default.
        spread: 90th percentile over mean, minus one, of a forecast without samples.
    """

    overhead_s: float = 0.005
    step_s: float = 0.011
    per_sequence_s: float = 30e-6
    per_context_token_s: float = 80e-9
    per_prefill_token_s: float = 40e-6
    lora_factor: float = 1.15
    adapter_load_s: float = 0.1
    chunk_budget_tokens: int = 2048
    spread: float = 0.5


class LatencyPredictor:
    """Forecasts from the ledger's aggregates; O(1) per server."""

    def __init__(self, *, prior: StepTimeModel) -> None:
        """Start from `prior` for every server."""
        self._prior = prior

    def forecast(
        self,
        backend: BackendState,
        *,
        prompt_tokens: int,
        uncached_tokens: int,
        output_tokens: int,
        adapter: str | None,
        now: float,
    ) -> Forecast:
        """Predict a request's times on a server, with the request added to what runs there.

        Args:
            backend: the server's ledger entry.
            prompt_tokens: length of the prompt.
            uncached_tokens: the part of it that needs a prefill there.
            output_tokens: expected length of the answer.
            adapter: the adapter the request needs there, or None.
            now: the present; TTFT counts from it.
        """
        model = self._prior
        sequences = backend.decoding + backend.external_running
        lora = adapter is not None or bool(backend.adapters.active)
        factor = model.lora_factor if lora else 1.0
        base_s = factor * (
            model.step_s
            + model.per_sequence_s * sequences
            + model.per_context_token_s * backend.context_tokens
        )
        room = max(1.0, model.chunk_budget_tokens - sequences)
        prefill_tokens = backend.pending_prefill_tokens + uncached_tokens
        ttft_s = (
            model.overhead_s
            + self._remaining_step_s(backend, base_s, now)
            + model.per_prefill_token_s * prefill_tokens
            + ceil(prefill_tokens / room) * base_s
        )
        if adapter is not None and not backend.adapters.is_resident(adapter):
            ttft_s += model.adapter_load_s
        own_context = prompt_tokens + output_tokens / 2
        decode_s = base_s + factor * (
            model.per_sequence_s + model.per_context_token_s * own_context
        )
        interference = min(room, backend.pending_prefill_tokens / max(1, output_tokens))
        tpot_s = decode_s + model.per_prefill_token_s * interference
        wide = 1.0 + model.spread
        return Forecast(ttft_s, ttft_s * wide, tpot_s, tpot_s * wide)

    @staticmethod
    def _remaining_step_s(backend: BackendState, step_s: float, now: float) -> float:
        """Time to the end of the engine's current step: by the phase of its last chunk."""
        if not backend.in_flight:
            return 0.0
        if backend.last_chunk_at is None:
            return step_s / 2
        return step_s - (now - backend.last_chunk_at) % step_s
