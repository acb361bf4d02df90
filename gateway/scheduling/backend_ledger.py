"""What we know of each model server: our own streams exactly, its reports with their age.

The aggregates of a server are kept incrementally, so that a forecast reads O(1) numbers. Counting
what we sent ourselves beats any metric: a report is 50 ms to 5 s old, the ledger has no age.
"""

from collections.abc import Iterable
from typing import Final

from gateway.scheduling.adapter_holders import AdapterHolders
from gateway.scheduling.backend_state import PREFIX_BLOCKS, BackendState
from gateway.scheduling.model import BackendId, BackendLoad, ServedModel
from gateway.scheduling.outlook import NEVER
from gateway.scheduling.tracked_request import TrackedRequest

_EXTERNAL_EWMA: Final = 0.3
"""Weight of the newest report in the estimate of others' traffic (a few reports to settle)."""
_REMOVED_KEPT_S: Final = 900.0
"""What is known of a server taken out of the pool is kept so long, in case it returns, ..."""
_REMOVED_KEPT: Final = 64
"""... and of so many of them: their names may all be new ones each time."""


class BackendLedger:
    """All servers of one pool, and which of them serve a model.

    Attributes:
        is_empty: whether no server is usable (draining ones do not count).
        probes_due: whether a server is to be tried with the next request that fits.
    """

    def __init__(self, *, default_max_loras: int, chunk_budget_tokens: int) -> None:
        """Start without servers. `chunk_budget_tokens` holds for those that do not show theirs."""
        self._chunk_budget_tokens = chunk_budget_tokens
        self._default_max_loras = default_max_loras
        self._backends: dict[BackendId, BackendState] = {}
        self._removed_at: dict[BackendId, float] = {}
        self._open_by_model: dict[str, tuple[BackendState, ...]] = {}
        self._known_models: dict[str, None] = {}
        self._holders = AdapterHolders()
        self.is_empty = True
        self.probes_due = False

    def reconfigure(self, *, default_max_loras: int, chunk_budget_tokens: int) -> None:
        """Change what is taken for granted of servers that have not shown it themselves."""
        self._default_max_loras = default_max_loras
        self._chunk_budget_tokens = chunk_budget_tokens
        for backend in self._backends.values():
            if backend.load.max_loras is None:
                backend.adapters.report((), max_loras=default_max_loras, taken_at=NEVER)
            if backend.load.largest_step_tokens is None:
                backend.chunk_budget_tokens = chunk_budget_tokens
            else:
                self._infer_chunk_budget(backend, backend.load.largest_step_tokens)
            backend.fresh_until = NEVER

    @property
    def backends(self) -> Iterable[BackendState]:
        """Every server that joined and is not forgotten, in order of joining."""
        return self._backends.values()

    def get(self, backend_id: BackendId) -> BackendState | None:
        """The server's state, or None if it never joined or is forgotten."""
        return self._backends.get(backend_id)

    def serving(self, model: str) -> tuple[BackendState, ...]:
        """Servers that may be given new requests for this model."""
        return self._open_by_model.get(model, ())

    def holding(self, adapter: str) -> list[BackendState]:
        """Servers that hold the adapter and may be given new requests for it."""
        holders = [self._backends[backend_id] for backend_id in self._holders.of(adapter)]
        return [backend for backend in holders if backend.takes(adapter)]

    def knows(self, model: str) -> bool:
        """Whether any server, also one that is away, is known to serve the model."""
        return model in self._known_models

    def join(self, backend_id: BackendId, models: tuple[ServedModel, ...]) -> BackendState:
        """Make a server usable, or update what it serves."""
        backend = self._backends.get(backend_id)
        if backend is None:
            backend = BackendState(
                backend_id,
                max_loras=self._default_max_loras,
                chunk_budget_tokens=self._chunk_budget_tokens,
            )
            self._backends[backend_id] = backend
        self._removed_at.pop(backend_id, None)
        if not backend.usable:
            backend.adapters.forget()
            backend.load = BackendLoad()
            backend.load_taken_at = None
            backend.kv_capacity_tokens = None
            backend.external_running = 0.0
            backend.fresh_until = NEVER
            backend.lives += 1
        backend.usable = True
        backend.draining = False
        backend.models = {model.name: model for model in models}
        backend.lora_models = {model.name: None for model in models if model.parent is not None}
        self._index_models()
        return backend

    def drain(self, backend_id: BackendId) -> None:
        """Give the server nothing new; what runs there goes on."""
        backend = self._backends.get(backend_id)
        if backend is not None:
            backend.draining = True
            self._index_models()

    def leave(self, backend_id: BackendId, *, for_good: bool = False, now: float) -> None:
        """Take the server out; its requests in flight stay counted until each has ended.

        One that is not expected back (`for_good`) will be forgotten.
        """
        backend = self._backends.get(backend_id)
        if backend is None:
            return
        backend.usable = False
        backend.prefixes.clear()
        if for_good:
            self._removed_at.setdefault(backend_id, now)
        self._index_models()

    def forget_removed(self, *, now: float) -> list[BackendId]:
        """Drop what is known of servers removed long ago, and of the first of too many.

        Those with requests in flight stay until these have ended. Returns the dropped ones.
        """
        forgotten: list[BackendId] = []
        for backend_id, removed_at in self._removed_at.items():
            kept = len(self._removed_at) - len(forgotten)
            if kept <= _REMOVED_KEPT and now - removed_at < _REMOVED_KEPT_S:
                break
            backend = self._backends[backend_id]
            if not backend.in_flight and backend.hold is None:
                forgotten.append(backend_id)
        for backend_id in forgotten:
            del self._removed_at[backend_id]
            del self._backends[backend_id]
            self._holders.forget(backend_id)
        if forgotten:
            self._index_models()
        return forgotten

    def report(self, backend: BackendState, load: BackendLoad, *, taken_at: float) -> None:
        """Take in one scrape; an older one than the last is ignored."""
        if backend.load_taken_at is not None and taken_at < backend.load_taken_at:
            return
        backend.load = load
        backend.load_taken_at = taken_at
        backend.fresh_until = NEVER
        if load.kv_blocks is None or load.block_tokens is None:
            backend.kv_capacity_tokens = None
        else:
            backend.kv_capacity_tokens = load.kv_blocks * load.block_tokens
        if load.running is not None:
            reported = load.running + (load.waiting or 0)
            excess = max(0.0, reported - backend.sequences_at(taken_at))
            backend.external_running += _EXTERNAL_EWMA * (excess - backend.external_running)
            backend.external_context_tokens = backend.external_running * (
                backend.context_tokens / backend.decoding if backend.decoding else 0.0
            )
        if load.largest_step_tokens is not None:
            self._infer_chunk_budget(backend, load.largest_step_tokens)
        if load.active_adapters is not None or load.max_loras is not None:
            backend.adapters.report(
                load.active_adapters or (), max_loras=load.max_loras, taken_at=taken_at
            )

    def _infer_chunk_budget(self, backend: BackendState, largest_step_tokens: int) -> None:
        """A step never exceeds the budget; a longer prefill that was split shows what it is."""
        if backend.longest_prefill_tokens > largest_step_tokens:
            backend.chunk_budget_tokens = largest_step_tokens
        else:
            backend.chunk_budget_tokens = max(self._chunk_budget_tokens, largest_step_tokens)

    def reserve(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """Count the request on the server; its prefill is pending from here."""
        backend.fresh_until = NEVER
        tracked.backend_id = backend.id
        tracked.dispatched_at = now
        tracked.prefill_pending = True
        tracked.output_tokens = 0
        tracked.adapter = backend.adapter_of(tracked.target)
        backend.in_flight[tracked.request.id] = tracked
        if not tracked.request.streamed:
            backend.unseen[tracked.request.id] = tracked
        backend.dispatches += 1
        if tracked.request.prefix_blocks:
            self._note_prefix(backend, tracked)
        bound_s = tracked.tpot_bound_s
        if bound_s is not None:
            backend.tpot_bounds[bound_s] = backend.tpot_bounds.get(bound_s, 0) + 1
            backend.strictest_tpot_s = min(bound_s, backend.strictest_tpot_s)
        backend.sequences += tracked.request.choices
        backend.changes.append((now, tracked.request.choices))
        backend.pending_prefill_tokens += tracked.uncached_tokens
        backend.kv_reserved_tokens += tracked.prompt_tokens + tracked.expected_output_tokens
        backend.expected_output_tokens += tracked.expected_output_tokens
        if tracked.adapter is not None:
            backend.adapters.acquire(tracked.adapter, now=now)
            self._holders.note(tracked.adapter, backend.id, backend.adapters)

    def _note_prefix(self, backend: BackendState, tracked: TrackedRequest) -> None:
        kv_tokens = backend.kv_capacity_tokens
        if kv_tokens is not None and tracked.block_tokens > 0.0:
            fits = int(kv_tokens / tracked.block_tokens)
            backend.prefixes.capacity_blocks = min(PREFIX_BLOCKS, fits)
        blocks = tracked.request.prefix_blocks
        backend.prefixes.add(tracked.adapter, blocks)
        backend.shared.take(tracked.adapter, blocks, tracked.block_tokens)

    def end_prefill(self, backend: BackendState, tracked: TrackedRequest) -> None:
        """Move the request from prefill to decoding; harmless when already there."""
        if not tracked.prefill_pending:
            return
        backend.fresh_until = NEVER
        tracked.prefill_pending = False
        backend.pending_prefill_tokens -= tracked.uncached_tokens
        backend.longest_prefill_tokens = max(
            backend.longest_prefill_tokens, tracked.uncached_tokens
        )
        backend.decoding += tracked.request.choices
        backend.context_tokens += tracked.prompt_tokens * tracked.request.choices

    def progress(self, backend: BackendState, tracked: TrackedRequest, tokens: int) -> None:
        """Set the request's output tokens so far; counts never go back."""
        grown = tokens - tracked.output_tokens
        if grown > 0:
            if tracked.prefill_pending:
                self.end_prefill(backend, tracked)
            backend.fresh_until = NEVER
            tracked.output_tokens = tokens
            backend.context_tokens += grown

    def progress_unseen(self, backend: BackendState, *, now: float) -> None:
        """Let requests that are not streamed progress as forecast, up to the expected answer."""
        for tracked in backend.unseen.values():
            prediction = tracked.prediction
            if prediction is None:
                continue
            decoding_s = now - tracked.dispatched_at - prediction.ttft_s
            if decoding_s >= 0.0:
                self.end_prefill(backend, tracked)
                steps = int(decoding_s / prediction.tpot_s) * tracked.request.choices
                self.progress(backend, tracked, min(steps, tracked.expected_output_tokens))

    def release(self, backend: BackendState, tracked: TrackedRequest, *, now: float) -> None:
        """Take the request off the server's counts; exactly the reverse of what was added."""
        backend.fresh_until = NEVER
        del backend.in_flight[tracked.request.id]
        backend.unseen.pop(tracked.request.id, None)
        backend.sequences -= tracked.request.choices
        backend.changes.append((now, -tracked.request.choices))
        backend.kv_reserved_tokens -= tracked.prompt_tokens + tracked.expected_output_tokens
        backend.expected_output_tokens -= tracked.expected_output_tokens
        if tracked.request.prefix_blocks:
            backend.shared.give_back(tracked.adapter, tracked.request.prefix_blocks)
        bound_s = tracked.tpot_bound_s
        if bound_s is not None:
            backend.tpot_bounds[bound_s] -= 1
            if not backend.tpot_bounds[bound_s]:
                del backend.tpot_bounds[bound_s]
                backend.strictest_tpot_s = min(backend.tpot_bounds, default=float("inf"))
        if tracked.prefill_pending:
            backend.pending_prefill_tokens -= tracked.uncached_tokens
            tracked.prefill_pending = False
        else:
            backend.decoding -= tracked.request.choices
            backend.context_tokens -= (
                tracked.prompt_tokens * tracked.request.choices + tracked.output_tokens
            )
        if tracked.adapter is not None:
            backend.adapters.release(tracked.adapter, now=now)

    def _index_models(self) -> None:
        index: dict[str, list[BackendState]] = {}
        known: dict[str, None] = {}
        for backend in self._backends.values():
            for name in backend.models:
                known[name] = None
                if backend.usable and not backend.draining:
                    index.setdefault(name, []).append(backend)
        self._open_by_model = {name: tuple(found) for name, found in index.items()}
        self._known_models = known
        self.is_empty = not any(b.usable and not b.draining for b in self._backends.values())
