"""A vLLM engine as a pure step-level model: continuous batching, chunked prefill, KV blocks, LoRA.

Each step has a budget of `max_num_batched_tokens`: one token for each decoding sequence, then the
running prefills, then waiting sequences while KV blocks, `max_num_seqs` and adapter slots allow.
A waiting sequence whose adapter would exceed `max_loras` is passed over, others may overtake it;
one that lacks KV blocks holds up all behind it. Without a block to grow, the last admitted
sequence (with priorities: the least urgent) is preempted and computed again.
Source: vLLM v1/core/sched/scheduler.py; step time: `profiles`.

The engine has no clock: callers pass `now`, which never decreases, and `advance` to it before they
submit, abort or read. A step without prefill costs the same for one sequence as for a thousand.
"""

from collections import deque
from copy import copy
from random import Random

from gateway.scheduling.model import BackendLoad
from gateway.simulator.engine_model import (
    BLOCK_TOKENS,
    STEP_TOKENS_BUCKETS,
    EngineEvent,
    EngineOptions,
    EngineRequest,
    EngineStats,
    EngineVariant,
    Finished,
    FirstToken,
    Preempted,
    SchedulingOrder,
    Sequence,
    Stage,
    Tracked,
)
from gateway.simulator.profiles import EngineProfile
from gateway.simulator.step_scheduler import StepScheduler, kv_capacity_tokens

__all__ = [
    "BLOCK_TOKENS",
    "Engine",
    "EngineEvent",
    "EngineOptions",
    "EngineRequest",
    "EngineStats",
    "EngineVariant",
    "Finished",
    "FirstToken",
    "Preempted",
    "SchedulingOrder",
    "kv_capacity_tokens",
]


class Engine:
    """One simulated engine; the module docstring has its rules."""

    def __init__(self, *, profile: EngineProfile, rng: Random, options: EngineOptions) -> None:
        """Make an idle engine; all random draws come from `rng`.

        Raises:
            ValueError: the token budget is below the number of sequences.
        """
        if profile.max_num_batched_tokens < profile.max_num_seqs:
            message = f"{profile.name}: max_num_batched_tokens must be at least max_num_seqs"
            raise ValueError(message)
        self.profile = profile
        self.options = options
        self._rng = rng
        self._scheduler = StepScheduler(profile, options, rng)
        self._tracked: dict[str, Tracked] = {}
        self._arriving: deque[Tracked] = deque()
        self._step_end: float | None = None
        self._frozen_at: float | None = None
        self._order = 0

    def submit(self, request: EngineRequest, *, now: float) -> bool:
        """Take a request; False if the queue is full. Its id must not be in use.

        Raises:
            ValueError: the request could never run: see `why_impossible`.
        """
        reason = self.why_impossible(request)
        if reason is not None:
            raise ValueError(reason)
        queued = self._scheduler.waiting.count + len(self._arriving)
        if self.options.max_queued is not None and queued >= self.options.max_queued:
            self.stats.refused += 1
            return False
        tracked = Tracked(request, now + self.profile.api_overhead_s)
        self._tracked[request.id] = tracked
        self._arriving.append(tracked)
        self.stats.requests += 1
        return True

    def why_impossible(self, request: EngineRequest) -> str | None:
        """Say why a request could never run here, or None."""
        tokens = request.prompt_tokens + request.output_tokens
        if request.prompt_tokens < 1 or request.output_tokens < 0 or request.choices < 1:
            return "prompt_tokens and choices must be at least 1, output_tokens at least 0"
        if tokens > self.capacity_tokens:
            return f"{tokens} tokens exceed the KV cache"
        if request.adapter is not None and not self.options.max_loras:
            return f"adapter {request.adapter}: LoRA is not enabled (max_loras is 0)"
        if request.prefix_block_tokens % BLOCK_TOKENS:
            return f"prefix_block_tokens must be a multiple of {BLOCK_TOKENS}"
        return None

    def abort(self, request_id: str, *, now: float) -> None:  # noqa: ARG002 - symmetry of inputs
        """Drop a request and free what it holds at once; unknown ids are ignored."""
        tracked = self._tracked.pop(request_id, None)
        if tracked is None:
            return
        self.stats.aborted += 1
        if tracked.sequences:
            for sequence in tracked.sequences:
                self._scheduler.drop(sequence)
        else:
            self._arriving.remove(tracked)

    def next_event_at(self) -> float | None:
        """When the step in progress ends, or an idle engine has work; None if idle or frozen."""
        if self._frozen_at is not None:
            return None
        if self._step_end is not None:
            return self._step_end
        return self._arriving[0].ready_at if self._arriving else None

    def advance(self, now: float) -> list[EngineEvent]:
        """End every step that ends at or before `now`; return what happened, in order."""
        events: list[EngineEvent] = []
        if self._frozen_at is not None:
            return events
        while True:
            at = self._step_end
            if at is None:
                if not self._arriving or self._arriving[0].ready_at > now:
                    return events
                at = self._arriving[0].ready_at
            elif at > now:
                return events
            else:
                self._end_step(at, events)
            self._begin_step(at, events)

    def freeze(self, *, now: float) -> None:
        """Stop all progress until `thaw`; requests are still taken."""
        if self._frozen_at is None:
            self._frozen_at = now

    def thaw(self, *, now: float) -> None:
        """Go on as if no time had passed since `freeze`."""
        if self._frozen_at is None:
            return
        if self._step_end is not None:
            self._step_end += now - self._frozen_at
        for tracked in self._arriving:
            tracked.ready_at = max(tracked.ready_at, now)
        self._frozen_at = None

    def set_speed(self, factor: float) -> None:
        """From the next step on, divide step times by `factor` (> 0)."""
        self._scheduler.times.speed = factor

    def forget_adapter(self, adapter: str) -> None:
        """Drop an adapter from GPU and host memory (unloaded by its name), unless it runs."""
        self._scheduler.slots.forget(adapter)

    def reset_prefix_cache(self) -> None:
        """Drop every cached prefix that no request uses."""
        self._scheduler.kv.forget_prefixes()

    def output_tokens(self, request_id: str) -> int:
        """Output tokens so far, of all choices together; 0 for an unknown or finished request."""
        tracked = self._tracked.get(request_id)
        if tracked is None:
            return 0
        ended_step = self._scheduler.batch.step - (self._step_end is not None)
        tokens = 0
        for sequence in tracked.sequences:
            if sequence.stage is Stage.DECODING:
                tokens += ended_step + sequence.generated_offset
            else:
                tokens += sequence.generated
        return tokens

    @property
    def stats(self) -> EngineStats:
        """Totals since the start."""
        return self._scheduler.stats

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit in the KV cache."""
        return self._scheduler.kv.total * BLOCK_TOKENS

    def load(self) -> BackendLoad:
        """What a scrape of /metrics would say now."""
        scheduler = self._scheduler
        slots, stats = scheduler.slots, scheduler.stats
        return BackendLoad(
            running=len(scheduler.running),
            waiting=scheduler.waiting.count,
            waiting_deferred=sum(scheduler.waiting.deferred(slots).values()),
            kv_usage=scheduler.kv.used / scheduler.kv.total,
            kv_blocks=scheduler.kv.total,
            block_tokens=BLOCK_TOKENS,
            max_loras=self.options.max_loras if slots.used else None,
            active_adapters=tuple(slots.active) if slots.used else None,
            prompt_tokens_total=float(stats.prompt_tokens),
            generation_tokens_total=float(stats.generated_tokens),
            preemptions_total=float(stats.preemptions),
            steps_total=float(stats.steps),
            prefix_queries_total=float(stats.prefix_query_tokens),
            prefix_hits_total=float(stats.prefix_hit_tokens),
            largest_step_tokens=next(
                (bound for bound in STEP_TOKENS_BUCKETS if bound >= stats.largest_step_tokens),
                stats.largest_step_tokens,
            )
            if stats.largest_step_tokens
            else None,
        )

    def running_adapters(self) -> tuple[str, ...]:
        """Adapters in the batch, in order of arrival."""
        return tuple(self._scheduler.slots.active)

    def resident_adapters(self) -> tuple[str, ...]:
        """Adapters on the GPU, least recently used first."""
        return self._scheduler.slots.resident

    def fork(self) -> "Engine":
        """Return an independent copy that would go on exactly alike (same noise to come)."""
        rng = copy(self._rng)
        twin = Engine(profile=self.profile, rng=rng, options=self.options)
        twins: dict[Sequence, Sequence] = {}
        twin._tracked = {i: tracked.copy(twins) for i, tracked in self._tracked.items()}
        twin._arriving = deque(twin._tracked[tracked.request.id] for tracked in self._arriving)
        twin._scheduler = self._scheduler.copy(rng, twins)
        twin._step_end = self._step_end
        twin._frozen_at = self._frozen_at
        twin._order = self._order
        return twin

    def _end_step(self, at: float, events: list[EngineEvent]) -> None:
        first = len(events)
        self._scheduler.end(at, events)
        for event in events[first:]:
            if isinstance(event, Finished):
                del self._tracked[event.request_id]

    def _begin_step(self, at: float, events: list[EngineEvent]) -> None:
        arriving = self._arriving
        while arriving and arriving[0].ready_at <= at:
            self._queue(arriving.popleft())
        seconds = self._scheduler.begin(at, events)
        if seconds is None:
            self._step_end = None
            return
        self._step_end = at + seconds
        self.stats.busy_s += seconds

    def _queue(self, tracked: Tracked) -> None:
        request = tracked.request
        priority = request.priority if self.options.order is SchedulingOrder.PRIORITY else 0
        for _ in range(request.choices):
            self._order += 1
            sequence = Sequence(tracked, (priority, self._order))
            tracked.sequences.append(sequence)
            self._scheduler.push(sequence)
