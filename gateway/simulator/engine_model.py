"""The engine's nouns: requests, events, options, statistics, and its record of a sequence."""

from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto

BLOCK_TOKENS = 16
"""Tokens in one KV block (vLLM's default)."""

STEP_TOKENS_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Bounds of vLLM's histogram iteration_tokens_total."""


class SchedulingOrder(StrEnum):
    """Order of the waiting queue, as vLLM's `--scheduling-policy`."""

    FCFS = "fcfs"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVariant:
    """Terms that the linear step formula lacks, to find out predictors that merely invert it.

    Attributes:
        batch_square_s: added to each step per square of its sequences.
        stall_every_s: a step that crosses a multiple of this period takes `stall_s` longer; 0: no.
        stall_s: length of a stall.
        speculative_tokens: each sequence yields a uniform draw of 1..this many tokens per step.
    """

    batch_square_s: float = 0.0
    stall_every_s: float = 0.0
    stall_s: float = 0.2
    speculative_tokens: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a server was started.

    Attributes:
        max_loras: adapters in one batch and on the GPU; 0: LoRA is not enabled.
        max_cpu_loras: adapters kept in host memory; None: as many as `max_loras` (vLLM's default).
        lora_rank: rank of the adapters, for their load time and memory.
        order: of the waiting queue.
        noise_sigma: of the lognormal factor (mean 1) on each step's time.
        prefix_caching: whether leading prompt blocks are reused.
        max_queued: requests that may wait; one more is refused. None: no limit.
        kv_tokens: KV capacity; None: the profile's, less what the LoRA slots take.
        speed: initial speed factor; 2.0 halves each step's time.
    """

    max_loras: int = 0
    max_cpu_loras: int | None = None
    lora_rank: int = 16
    order: SchedulingOrder = SchedulingOrder.FCFS
    noise_sigma: float = 0.04
    prefix_caching: bool = True
    max_queued: int | None = None
    kv_tokens: int | None = None
    speed: float = 1.0
    variant: EngineVariant = field(default_factory=EngineVariant)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One request as the engine sees it.

    Attributes:
        adapter: LoRA adapter, or None for the base model.
        output_tokens: length of the answer; 0: one prefill without output (embeddings).
        prefix_blocks: chained hashes of the prompt's leading blocks.
        prefix_block_tokens: tokens in each of them, a multiple of 16.
        priority: vLLM's sign, smaller sooner; used with `SchedulingOrder.PRIORITY` only.
        choices: sequences run for this request, each with `output_tokens` tokens.
    """

    id: str
    adapter: str | None
    prompt_tokens: int
    output_tokens: int
    prefix_blocks: tuple[int, ...] = ()
    prefix_block_tokens: int = BLOCK_TOKENS
    priority: int = 0
    choices: int = 1


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first output token of a request (of its first choice) is there."""

    request_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Finished:
    """All choices of a request are complete; `output_tokens` is their sum."""

    request_id: str
    at: float
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Preempted:
    """A sequence of the request lost its KV blocks and will be computed again."""

    request_id: str
    at: float


EngineEvent = FirstToken | Finished | Preempted


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine's start.

    Attributes:
        cold_adapter_loads: adapters brought to the GPU because they were not there.
        disk_adapter_loads: those of them that were not in host memory either.
        slot_waits: sequences that were passed over at least once for want of an adapter slot.
        max_distinct_adapters: the most adapters ever in one batch.
        largest_step_tokens: the most tokens of one step with prefill.
        busy_s: time spent in steps.
    """

    steps: int = 0
    requests: int = 0
    finished: int = 0
    aborted: int = 0
    refused: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    cold_adapter_loads: int = 0
    disk_adapter_loads: int = 0
    slot_waits: int = 0
    max_distinct_adapters: int = 0
    largest_step_tokens: int = 0
    busy_s: float = 0.0

    def copy(self) -> "EngineStats":
        """Return an independent copy."""
        return replace(self)


class Stage(Enum):
    """Where a sequence is."""

    WAITING = auto()
    PREFILLING = auto()
    DECODING = auto()
    GONE = auto()


class Tracked:
    """A submitted request and its sequences.

    Attributes:
        ready_at: when it reaches the engine's queue.
        unfinished: sequences that still run or wait.
        started: whether its first token was announced.
    """

    __slots__ = ("ready_at", "request", "sequences", "started", "unfinished")

    def __init__(self, request: EngineRequest, ready_at: float) -> None:
        """Track a request that becomes schedulable at `ready_at`."""
        self.request = request
        self.ready_at = ready_at
        self.sequences: list[Sequence] = []
        self.unfinished = request.choices
        self.started = False

    def copy(self, twins: dict["Sequence", "Sequence"]) -> "Tracked":
        """Return an independent copy; `twins` learns the copy of each sequence."""
        twin = Tracked(self.request, self.ready_at)
        twin.unfinished = self.unfinished
        twin.started = self.started
        for sequence in self.sequences:
            twins[sequence] = sequence.copy_to(twin)
            twin.sequences.append(twins[sequence])
        return twin


class Sequence:
    """One choice of a request.

    While it decodes, its lengths are stored as offsets from the batch's step counter, so that a
    step costs nothing per sequence.

    Attributes:
        rank: key in the waiting queue, unique.
        target: tokens to prefill: the prompt, after a preemption also what was generated.
        computed: of them, those prefilled or found in the cache.
        generated: output tokens so far; stale while decoding.
        context_offset: KV tokens less the step counter, while decoding.
        generated_offset: output tokens less the step counter, while decoding.
        finish_step: value of the step counter at which the last token is there.
        shared: prefix cache keys it holds.
        shared_blocks: their KV blocks.
        published: prefix blocks already offered to the cache (or found there).
        queued_scan: number of the admission scan before which it was queued.
    """

    __slots__ = (
        "computed",
        "context_offset",
        "finish_step",
        "generated",
        "generated_offset",
        "published",
        "queued_scan",
        "rank",
        "shared",
        "shared_blocks",
        "stage",
        "target",
        "tracked",
    )

    def __init__(self, tracked: Tracked, rank: tuple[int, int]) -> None:
        """Make a sequence that waits for its first prefill."""
        self.tracked = tracked
        self.rank = rank
        self.stage = Stage.WAITING
        self.target = tracked.request.prompt_tokens
        self.computed = 0
        self.generated = 0
        self.context_offset = 0
        self.generated_offset = 0
        self.finish_step = -1
        self.shared: list[tuple[str | None, int]] = []
        self.shared_blocks = 0
        self.published = 0
        self.queued_scan = 0

    def copy_to(self, tracked: Tracked) -> "Sequence":
        """Return an independent copy that belongs to `tracked`."""
        twin = Sequence(tracked, self.rank)
        twin.stage = self.stage
        twin.target = self.target
        twin.computed = self.computed
        twin.generated = self.generated
        twin.context_offset = self.context_offset
        twin.generated_offset = self.generated_offset
        twin.finish_step = self.finish_step
        twin.shared = list(self.shared)
        twin.shared_blocks = self.shared_blocks
        twin.published = self.published
        twin.queued_scan = self.queued_scan
        return twin
