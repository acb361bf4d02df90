"""What goes into each step of a simulated engine: decodes, prefill chunks, admission, preemption.

Source of the order: vLLM v1/core/sched/scheduler.py.
"""

from collections.abc import Mapping
from random import Random

from gateway.simulator.decode_batch import DecodeBatch
from gateway.simulator.engine_model import (
    BLOCK_TOKENS,
    EngineEvent,
    EngineOptions,
    EngineStats,
    Finished,
    FirstToken,
    Preempted,
    SchedulingOrder,
    Sequence,
    Stage,
)
from gateway.simulator.kv_blocks import KvBlocks
from gateway.simulator.lora_slots import LoraSlots
from gateway.simulator.profiles import EngineProfile
from gateway.simulator.step_time import StepTime
from gateway.simulator.waiting_queue import WaitingQueue


def kv_capacity_tokens(profile: EngineProfile, options: EngineOptions) -> int:
    """KV tokens of a server: what the options say, or the profile's less the LoRA slots'."""
    if options.kv_tokens is not None:
        return options.kv_tokens
    if not options.max_loras:
        return profile.kv_tokens
    slots = profile.lora_kv_rank_tokens * options.lora_rank * options.max_loras
    return max(BLOCK_TOKENS, int(profile.kv_tokens - profile.lora_kv_fixed_tokens - slots))


class StepScheduler:
    """The running and waiting sequences of one engine, and the resources they hold.

    Attributes:
        stats: totals since the start.
        running: sequences in the batch, in order of admission.
    """

    def __init__(self, profile: EngineProfile, options: EngineOptions, rng: Random) -> None:
        """Make an empty batch; all random draws come from `rng`."""
        self.stats = EngineStats()
        self.kv = KvBlocks(
            kv_capacity_tokens(profile, options) // BLOCK_TOKENS, caching=options.prefix_caching
        )
        self.slots = LoraSlots(options, rng, self.stats)
        self.times = StepTime(profile, options, rng)
        self.waiting = WaitingQueue()
        self.batch = DecodeBatch()
        self.running: dict[Sequence, None] = {}
        self._profile = profile
        self._options = options
        self._rng = rng
        self._prefilling: dict[Sequence, None] = {}
        self._chunks = 0
        self._chunk_tokens = 0
        self._chunk_attention = 0.0
        # Nothing waiting can be admitted until a sequence arrives or leaves.
        self._blocked = False
        self._scan = 0
        self._passed_over: dict[str | None, int] = {}
        self._requeued = 0

    def push(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        sequence.queued_scan = self._scan
        self.waiting.push(sequence)
        self._blocked = False

    def drop(self, sequence: Sequence) -> None:
        """Take out a sequence wherever it is, and free what it holds."""
        if sequence.stage is Stage.WAITING:
            self.waiting.discard(sequence)
            self._blocked = False
        elif sequence.stage is not Stage.GONE:
            self._leave(sequence)
        sequence.stage = Stage.GONE

    def begin(self, at: float, events: list[EngineEvent]) -> float | None:
        """Put together the step that begins at `at`; return its duration, None without work."""
        batch = self.batch
        preempted = False
        while not self.kv.take(batch.growth()):
            self._preempt(at, events)
            preempted = True
        load_s = 0.0
        self._chunks = 0
        if self._prefilling or (self.waiting.count and not self._blocked and not preempted):
            load_s = self._schedule_prefills(admit=not preempted)
        if not batch.count and not self._chunks:
            return None
        batch.begin_step()
        compute_s = self.times.decode(
            batch.count + self._chunks, batch.context, len(self.slots.active)
        )
        if self._chunks:
            compute_s += self.times.prefill(self._chunk_tokens, self._chunk_attention)
            tokens = batch.count + self._chunk_tokens
            self.stats.largest_step_tokens = max(self.stats.largest_step_tokens, tokens)
        return self.times.elapsed(compute_s, load_s, at)

    def end(self, at: float, events: list[EngineEvent]) -> None:
        """End the step in progress: count its tokens, let finished sequences go."""
        batch = self.batch
        self.stats.steps += 1
        self.stats.generated_tokens += batch.count
        if self._options.variant.speculative_tokens > 1:
            self._accept_drafts()
        if self._chunks:
            self._end_prefills(at, events)
        while (sequence := batch.ended()) is not None:
            self._leave(sequence)
            self._finish(sequence, at, events)

    def copy(self, rng: Random, twins: Mapping[Sequence, Sequence]) -> "StepScheduler":
        """Return an independent copy that draws from `rng`, sequences replaced by their twins."""
        twin = StepScheduler(self._profile, self._options, rng)
        twin.stats = self.stats.copy()
        twin.kv = self.kv.copy()
        twin.slots = self.slots.copy(rng, twin.stats)
        twin.times = self.times.copy(rng)
        twin.waiting = self.waiting.copy(twins)
        twin.batch = self.batch.copy(twins)
        twin.running = dict.fromkeys(twins[sequence] for sequence in self.running)
        twin._prefilling = dict.fromkeys(twins[sequence] for sequence in self._prefilling)
        twin._chunks = self._chunks
        twin._blocked = self._blocked
        twin._scan = self._scan
        twin._passed_over = dict(self._passed_over)
        twin._requeued = self._requeued
        return twin

    def _schedule_prefills(self, *, admit: bool) -> float:
        """Fill the step's budget with prefill chunks; return seconds of adapter loading."""
        self._chunk_tokens = 0
        self._chunk_attention = 0.0
        budget = self._profile.max_num_batched_tokens - self.batch.count
        for sequence in self._prefilling:
            if budget <= 0:
                return 0.0
            budget -= self._add_chunk(sequence, budget)
        load_s = 0.0
        if not admit or self._blocked:
            return load_s
        self._scan += 1
        while budget > 0:
            head = self._admissible()
            if head is None:
                self._blocked = True
                for adapter in self.waiting.deferred(self.slots):
                    self._passed_over[adapter] = self._scan
                break
            load_s += self._start(head)
            budget -= self._add_chunk(head, budget)
        return load_s

    def _admissible(self) -> Sequence | None:
        """Take the next waiting sequence's KV blocks; None if none may start."""
        if not self.waiting.count or len(self.running) >= self._profile.max_num_seqs:
            return None
        head = self.waiting.head(self.slots)
        if head is None or not self.kv.admit(head):
            return None
        return head

    def _start(self, sequence: Sequence) -> float:
        """Move a sequence, its blocks taken, into the batch; return seconds of adapter loading."""
        self.waiting.pop(sequence)
        sequence.stage = Stage.PREFILLING
        self.running[sequence] = None
        self._prefilling[sequence] = None
        stats = self.stats
        if self._options.prefix_caching:
            stats.prefix_query_tokens += sequence.target
            stats.prefix_hit_tokens += sequence.computed
        adapter = sequence.tracked.request.adapter
        if adapter is None:
            return 0.0
        if self._passed_over.get(adapter, -1) > sequence.queued_scan:
            stats.slot_waits += 1
        return self.slots.start(adapter)

    def _add_chunk(self, sequence: Sequence, budget: int) -> int:
        tokens = min(budget, sequence.target - sequence.computed)
        self._chunks += 1
        self._chunk_tokens += tokens
        self._chunk_attention += tokens * (sequence.computed + tokens / 2)
        sequence.computed += tokens
        self.kv.publish(sequence)
        return tokens

    def _end_prefills(self, at: float, events: list[EngineEvent]) -> None:
        for sequence in [s for s in self._prefilling if s.computed == s.target]:
            del self._prefilling[sequence]
            tracked = sequence.tracked
            if not sequence.generated:
                self.stats.prompt_tokens += sequence.target
            if tracked.request.output_tokens:
                sequence.generated += 1
                self.stats.generated_tokens += 1
                self.batch.add(sequence)
                if not tracked.started:
                    tracked.started = True
                    events.append(FirstToken(tracked.request.id, at))
            else:
                self._leave(sequence)
                self._finish(sequence, at, events)

    def _finish(self, sequence: Sequence, at: float, events: list[EngineEvent]) -> None:
        sequence.stage = Stage.GONE
        tracked = sequence.tracked
        tracked.unfinished -= 1
        if not tracked.unfinished:
            request = tracked.request
            self.stats.finished += 1
            events.append(Finished(request.id, at, request.output_tokens * request.choices))

    def _accept_drafts(self) -> None:
        """Give each decoding sequence a uniform draw of extra tokens, where they have room."""
        batch = self.batch
        most = self._options.variant.speculative_tokens
        for sequence in self.running:
            if sequence.stage is not Stage.DECODING:
                continue
            extra = min(self._rng.randrange(most), batch.tokens_left(sequence))
            if extra and self.kv.take(batch.extra_blocks(sequence, extra)):
                batch.add_tokens(sequence, extra)
                self.stats.generated_tokens += extra

    def _leave(self, sequence: Sequence) -> None:
        """Take a running sequence out of the batch and free what it holds."""
        if sequence.stage is Stage.DECODING:
            tokens = self.batch.remove(sequence)
        else:
            tokens = sequence.target
            self._prefilling.pop(sequence, None)
        self.kv.release(sequence, tokens)
        del self.running[sequence]
        adapter = sequence.tracked.request.adapter
        if adapter is not None:
            self.slots.stop(adapter)
        self._blocked = False

    def _preempt(self, at: float, events: list[EngineEvent]) -> None:
        """Send a running sequence back to the queue, to be computed again from the start."""
        if self._options.order is SchedulingOrder.PRIORITY:
            victim = max(self.running, key=lambda sequence: sequence.rank)
        else:
            victim = next(reversed(self.running))
        self._leave(victim)
        victim.stage = Stage.WAITING
        victim.target = victim.tracked.request.prompt_tokens + victim.generated
        if self._options.order is SchedulingOrder.FCFS:
            self._requeued -= 1
            victim.rank = (0, self._requeued)
        self.push(victim)
        self.stats.preemptions += 1
        events.append(Preempted(victim.tracked.request.id, at))
