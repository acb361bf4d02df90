"""One server as the gateway knows it: counters, adapters, prefixes, and the last report."""

from collections import deque
from typing import Final, NamedTuple

from gateway.scheduling.adapter_residency import AdapterResidency
from gateway.scheduling.model import BackendId, BackendLoad, RequestId, ServedModel
from gateway.scheduling.outlook import NEVER, NO_GLANCE, NO_OUTLOOK, Glance, Outlook
from gateway.scheduling.prefix_index import PrefixIndex
from gateway.scheduling.shared_blocks import SharedBlocks
from gateway.scheduling.tracked_request import TrackedRequest

_CHANGES_KEPT: Final = 512
"""Dispatches and releases remembered per server, to compare a report with its own instant."""
PREFIX_BLOCKS: Final = 50_000
"""Bound on the prefix hashes kept per server, about 5 MB."""


class Hold(NamedTuple):
    """An adapter slot on its way to a request that was overtaken too often.

    Attributes:
        holder: the request that gets the slot.
        adapter: the adapter that is to drain; it gets no new requests on this server, and neither
            do adapters that are not active there, but from more entitled requests.
    """

    holder: TrackedRequest
    adapter: str


class BackendState:
    """One server. Counters are in sequences and tokens and never go below zero.

    Attributes:
        usable: joined and not left; `draining` takes nothing new. `lives` counts its joinings.
        ejected: left out for now because requests fail there; `probe_due` asks for one to try it.
        failure_rate: chance that a request fails there, as seen of late; 0.0 while none fails.
        models: what it serves, by name; `lora_models` are the adapters among them.
        in_flight: requests dispatched there whose upstream is not known to be closed.
        decoding: our sequences past their first token; `context_tokens` is what they attend to.
        pending_prefill_tokens: uncached prompt tokens of requests without a first token.
        expected_output_tokens: expected answers of all in flight.
        kv_reserved_tokens: prompt plus expected answer of all in flight; less what their prompts
            share (`shared`), that is the KV peak.
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
        "ejected",
        "expected_output_tokens",
        "external_context_tokens",
        "external_running",
        "failure_rate",
        "fresh_until",
        "glance",
        "hold",
        "id",
        "in_flight",
        "kv_capacity_tokens",
        "kv_reserved_tokens",
        "last_chunk_at",
        "lives",
        "load",
        "load_taken_at",
        "longest_prefill_tokens",
        "lora_models",
        "models",
        "outlook",
        "pending_prefill_tokens",
        "prefixes",
        "probe_due",
        "sequences",
        "shared",
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
        self.lives = 0
        self.ejected = False
        self.probe_due = False
        self.failure_rate = 0.0
        self.models: dict[str, ServedModel] = {}
        self.lora_models: dict[str, None] = {}
        self.in_flight: dict[RequestId, TrackedRequest] = {}
        self.unseen: dict[RequestId, TrackedRequest] = {}
        self.adapters = AdapterResidency(max_loras=max_loras)
        self.prefixes = PrefixIndex(capacity_blocks=PREFIX_BLOCKS)
        self.sequences = 0
        self.changes: deque[tuple[float, int]] = deque(maxlen=_CHANGES_KEPT)
        self.decoding = 0
        self.context_tokens = 0
        self.pending_prefill_tokens = 0
        self.kv_reserved_tokens = 0
        self.expected_output_tokens = 0
        self.shared = SharedBlocks()
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

    def failed(self, tracked: TrackedRequest) -> bool:
        """Whether the request was tried here already, since the server joined."""
        return bool(tracked.tried) and (self.id, self.lives) in tracked.tried

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
