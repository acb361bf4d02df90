"""The decoding sequences of a simulated engine, at a cost per step that does not grow with them.

Every decoding sequence gains one token per step. So lengths are kept as offsets from one step
counter, the ends as a heap over that counter, and block growth as counts of sequences by
`(length - counter) mod 16`: the sequences that cross a block boundary share one residue.
"""

from collections.abc import Mapping
from heapq import heappop, heappush

from gateway.simulator.engine_model import BLOCK_TOKENS, Sequence, Stage


class DecodeBatch:
    """Aggregates of the decoding sequences.

    Attributes:
        step: the step counter; it counts the step in progress.
        count: decoding sequences.
        context: their KV tokens, those of the step in progress included.
    """

    def __init__(self) -> None:
        """Make an empty batch."""
        self.step = 0
        self.count = 0
        self.context = 0
        self._by_residue = [0] * BLOCK_TOKENS
        self._ends: list[tuple[int, tuple[int, int], Sequence]] = []

    def add(self, sequence: Sequence) -> None:
        """Let a sequence decode: its target is prefilled and its next token is there."""
        sequence.stage = Stage.DECODING
        sequence.context_offset = sequence.target - self.step
        sequence.generated_offset = sequence.generated - self.step
        self._by_residue[sequence.context_offset % BLOCK_TOKENS] += 1
        self.count += 1
        self.context += sequence.target
        self._set_end(sequence)

    def remove(self, sequence: Sequence) -> int:
        """Take a sequence out; return the KV tokens it holds and fix its `generated`."""
        tokens = self.step + sequence.context_offset
        sequence.generated = self.step + sequence.generated_offset
        self._by_residue[sequence.context_offset % BLOCK_TOKENS] -= 1
        self.count -= 1
        self.context -= tokens
        return tokens

    def growth(self) -> int:
        """Return the KV blocks that the next step needs."""
        return self._by_residue[-self.step % BLOCK_TOKENS]

    def begin_step(self) -> None:
        """Count a step in which each sequence computes one more token."""
        self.step += 1
        self.context += self.count

    def ended(self) -> Sequence | None:
        """Take the next sequence whose last token is there, if any; the caller removes it."""
        ends = self._ends
        while ends and ends[0][0] <= self.step:
            step, _, sequence = heappop(ends)
            # Entries of aborted and preempted sequences are left in the heap.
            if sequence.stage is Stage.DECODING and sequence.finish_step == step:
                return sequence
        return None

    def tokens_left(self, sequence: Sequence) -> int:
        """Tokens that a sequence lacks to its end, beyond this step's."""
        return sequence.finish_step - self.step

    def extra_blocks(self, sequence: Sequence, tokens: int) -> int:
        """Return the KV blocks that `tokens` more tokens in this step need."""
        length = self.step + sequence.context_offset
        return -(-(length + tokens) // BLOCK_TOKENS) - -(-length // BLOCK_TOKENS)

    def add_tokens(self, sequence: Sequence, tokens: int) -> None:
        """Give a sequence more tokens in this step (accepted drafts)."""
        self._by_residue[sequence.context_offset % BLOCK_TOKENS] -= 1
        sequence.context_offset += tokens
        sequence.generated_offset += tokens
        self._by_residue[sequence.context_offset % BLOCK_TOKENS] += 1
        self.context += tokens
        self._set_end(sequence)

    def copy(self, twins: Mapping[Sequence, Sequence]) -> "DecodeBatch":
        """Return an independent copy with each sequence replaced by its twin."""
        twin = DecodeBatch()
        twin.step = self.step
        twin.count = self.count
        twin.context = self.context
        twin._by_residue = list(self._by_residue)
        # Stale entries have no twin; leaving them out can unsort the heap, sorting repairs that.
        twin._ends = sorted(
            ((s, rank, twins[seq]) for s, rank, seq in self._ends if seq in twins),
            key=lambda end: end[:2],
        )
        return twin

    def _set_end(self, sequence: Sequence) -> None:
        output_tokens = sequence.tracked.request.output_tokens
        sequence.finish_step = output_tokens - sequence.generated_offset
        heappush(self._ends, (sequence.finish_step, sequence.rank, sequence))
