"""What we know of each model server: our own streams exactly, its reports with their age.

The aggregates of a server are kept incrementally, so that a forecast reads O(1) numbers. Counting
what we sent ourselves beats any metric: a report is 50 ms to 5 s old, the ledger has no age.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from gateway.scheduling.adapter_holders import AdapterHolders
from gateway.scheduling.adapter_residency import AdapterResidency
from gateway.scheduling.model import BackendId, BackendLoad, RequestId, ServedModel
from gateway.scheduling.outlook import NEVER, NO_GLANCE, NO_OUTLOOK, Glance, Outlook
from gateway.scheduling.prefix_index import PrefixIndex
from gateway.scheduling.tracked_request import TrackedRequest

_CHANGES_KEPT = 512
"""Dispatches and releases remembered per server, to compare a report with its own instant."""
_PREFIX_BLOCKS = 50_000
"""Bound on the prefix hashes kept per server, about 5 MB."""
_EXTERNAL_EWMA = 0.3
"""Weight of the newest report in the estimate of others' traffic (a few reports to settle)."""


class Hold(NamedTuple):
    """An adapter slot on its way to a request that was overtaken too often.

    Attributes:
        request_id: the request that gets the slot.
        adapter: the adapter that is to drain; it gets no new requests on this server, and neither
            do adapters that are not active there.
    """

    request_id: RequestId
    adapter: str


class BackendState:
    """One server. Counters are in sequences and tokens and never go below zero.

    Attributes:
        usable: joined and not left; `draining` takes nothing new.
        models: what it serves, by name; `lora_models` are the adapters among them.
        in_flight: requests dispatched there whose upstream is not known to be closed.
        decoding: our sequences past their first token; `context_tokens` is what they attend to.
        pending_prefill_tokens: uncached prompt tokens of requests without a first token.
        kv_reserved_tokens: prompt plus expected answer of all in flight, the KV peak.
        longest_prefill_tokens: most prompt tokens that one request had prefilled here.
        external_running: EWMA of sequences there that are not ours, of about our own length:
            `external_context_tokens`.
        chunk_budget_tokens: most tokens of one engine step (max_num_batched_tokens).
        hold: the request that an adapter slot is kept for, or None.
        tpot_bounds: TPOT that requests in flight there were admitted under, with their number;
            `strictest_tpot_s` is the lowest, infinite without any.
        kv_capacity_tokens: KV cache size in tokens as reported, or None.
        outlook, glance: what forecasts start from; the predictor makes them, when they are asked
            for at or after `fresh_until`. Whatever changes the numbers above sets that to NEVER.
        last_chunk_at: arrival of the newest chunk, the phase of the engine's step.
        unseen: those of `in_flight` whose progress shows only at their end (not streamed).
    """

    __slots__ = (
        "adapters",
        "changes",
        "chunk_budget_tokens",
        "context_tokens",
        "decoding",
        "dispatches",
        "draining",
        "external_context_tokens",
        "external_running",
        "fresh_until",
        "glance",
        "hold",
        "id",
        "in_flight",
        "kv_capacity_tokens",
        "kv_reserved_tokens",
        "last_chunk_at",
        "load",
        "load_taken_at",
        "longest_prefill_tokens",
        "lora_models",
        "models",
        "outlook",
        "pending_prefill_tokens",
        "prefixes",
        "sequences",
        "strictest_tpot_s",
        "tpot_bounds",
        "unseen",
        "usable",
    )

    def __init__(self, backend_id: BackendId, *, max_loras: int, chunk_budget_tokens: int) -> None:
        """Start unusable, empty, with the configured adapter slots and prefill tokens a step."""
        self.id = backend_id
        self.usable = False
        self.draining = False
        self.models: dict[str, ServedModel] = {}
        self.lora_models: dict[str, None] = {}
        self.in_flight: dict[RequestId, TrackedRequest] = {}
        self.unseen: dict[RequestId, TrackedRequest] = {}
        self.adapters = AdapterResidency(max_loras=max_loras)
        self.prefixes = PrefixIndex(capacity_blocks=_PREFIX_BLOCKS)
        self.sequences = 0
        self.changes: deque[tuple[float, int]] = deque(maxlen=_CHANGES_KEPT)
        self.decoding = 0
        self.context_tokens = 0
        self.pending_prefill_tokens = 0
        self.kv_reserved_tokens = 0
        self.longest_prefill_tokens = 0
        self.dispatches = 0
        self.external_running = 0.0
        self.external_context_tokens = 0.0
        self.chunk_budget_tokens = chunk_budget_tokens
        self.tpot_bounds: dict[float, int] = {}
        self.strictest_tpot_s = float("inf")
        self.kv_capacity_tokens: int | None = None
        self.outlook: Outlook = NO_OUTLOOK
        self.glance: Glance = NO_GLANCE
        self.fresh_until = NEVER
        self.hold: Hold | None = None
        self.last_chunk_at: float | None = None
        self.load = BackendLoad()
        self.load_taken_at: float | None = None

    def __repr__(self) -> str:
        """Id and load, for failed assertions."""
        return (
            f"<BackendState {self.id} usable={self.usable} in_flight={len(self.in_flight)}"
            f" adapters={self.adapters.active}>"
        )

    def takes(self, model: str) -> bool:
        """Whether it may be given new requests for this model."""
        return self.usable and not self.draining and model in self.models

    def uncached_tokens(self, tracked: TrackedRequest) -> int:
        """Tokens of the prompt that need a prefill here, >= 1."""
        blocks = tracked.request.prefix_blocks
        if not blocks:
            return tracked.prompt_tokens
        held = self.prefixes.match(self.adapter_of(tracked.target), blocks)
        return max(1, tracked.prompt_tokens - int(held * tracked.block_tokens))

    def sequences_at(self, instant: float) -> int:
        """Our sequences in flight at a recent instant."""
        since = 0
        for at, change in reversed(self.changes):
            if at <= instant:
                break
            since += change
        return self.sequences - since

    def has_slot_for(self, model: str) -> bool:
        """Whether the model's adapter, if it is one, is active here or a slot is free."""
        adapter = self.adapter_of(model)
        return adapter is None or self.adapters.admits(adapter)

    def adapter_of(self, model: str) -> str | None:
        """The LoRA adapter that serving this model takes here, or None for a base model."""
        return model if model in self.lora_models else None


class BackendLedger:
    """All servers of one pool, and which of them serve a model.

    Attributes:
        is_empty: whether no server is usable (draining ones do not count).
    """

    def __init__(self, *, default_max_loras: int, chunk_budget_tokens: int) -> None:
        """Start without servers. `chunk_budget_tokens` holds for those that do not show theirs."""
        self._chunk_budget_tokens = chunk_budget_tokens
        self._default_max_loras = default_max_loras
        self._backends: dict[BackendId, BackendState] = {}
        self._open_by_model: dict[str, tuple[BackendState, ...]] = {}
        self._known_models: dict[str, None] = {}
        self._holders = AdapterHolders()
        self.is_empty = True

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
        """Every server ever joined that is usable or still has requests, in order of joining."""
        return self._backends.values()

    def get(self, backend_id: BackendId) -> BackendState | None:
        """The server's state, or None if it never joined."""
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
        if not backend.usable:
            backend.adapters.forget()
            backend.prefixes.clear()
            backend.load = BackendLoad()
            backend.load_taken_at = None
            backend.kv_capacity_tokens = None
            backend.external_running = 0.0
            backend.fresh_until = NEVER
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

    def leave(self, backend_id: BackendId) -> None:
        """Take the server out; its requests in flight stay counted until each has ended."""
        backend = self._backends.get(backend_id)
        if backend is not None:
            backend.usable = False
            self._index_models()

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
        if tracked.adapter is not None:
            backend.adapters.acquire(tracked.adapter, now=now)
            self._holders.note(tracked.adapter, backend.id, backend.adapters)

    def _note_prefix(self, backend: BackendState, tracked: TrackedRequest) -> None:
        kv_tokens = backend.kv_capacity_tokens
        if kv_tokens is not None and tracked.block_tokens > 0.0:
            fits = int(kv_tokens / tracked.block_tokens)
            backend.prefixes.capacity_blocks = min(_PREFIX_BLOCKS, fits)
        backend.prefixes.add(tracked.adapter, tracked.request.prefix_blocks)

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
