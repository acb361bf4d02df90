"""The engine's own waiting queue: one heap per adapter, so that passing over adapters is cheap."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from gateway.simulator.engine_model import Sequence
from gateway.simulator.lora_slots import LoraSlots


class WaitingQueue:
    """Sequences by adapter and rank.

    vLLM scans one list and skips what needs another adapter slot; taking the least rank among the
    heads of the allowed adapters gives the same order.
    """

    def __init__(self) -> None:
        """Make an empty queue."""
        self.count = 0
        self._heaps: dict[str | None, list[tuple[tuple[int, int], Sequence]]] = {}

    def push(self, sequence: Sequence) -> None:
        """Queue a sequence by its rank."""
        adapter = sequence.tracked.request.adapter
        heappush(self._heaps.setdefault(adapter, []), (sequence.rank, sequence))
        self.count += 1

    def head(self, slots: LoraSlots) -> Sequence | None:
        """Return the next sequence whose adapter may run now, or None."""
        best: tuple[tuple[int, int], Sequence] | None = None
        for adapter, heap in self._heaps.items():
            if (best is None or heap[0][0] < best[0]) and slots.admits(adapter):
                best = heap[0]
        return best[1] if best else None

    def pop(self, sequence: Sequence) -> None:
        """Take out a sequence that `head` returned."""
        adapter = sequence.tracked.request.adapter
        heap = self._heaps[adapter]
        heappop(heap)
        self.count -= 1
        if not heap:
            del self._heaps[adapter]

    def discard(self, sequence: Sequence) -> None:
        """Take out any queued sequence (O(n): aborts in the queue are rare)."""
        adapter = sequence.tracked.request.adapter
        heap = self._heaps[adapter]
        heap.remove((sequence.rank, sequence))
        self.count -= 1
        if heap:
            heapify(heap)
        else:
            del self._heaps[adapter]

    def deferred(self, slots: LoraSlots) -> dict[str | None, int]:
        """Count the sequences that wait for an adapter slot, per adapter."""
        return {a: len(heap) for a, heap in self._heaps.items() if not slots.admits(a)}

    def copy(self, twins: Mapping[Sequence, Sequence]) -> "WaitingQueue":
        """Return an independent copy with each sequence replaced by its twin."""
        twin = WaitingQueue()
        twin.count = self.count
        twin._heaps = {
            adapter: [(rank, twins[sequence]) for rank, sequence in heap]
            for adapter, heap in self._heaps.items()
        }
        return twin
