"""Faults that tests switch on in a simulated server."""

from dataclasses import dataclass
from enum import StrEnum


class QueueFull(StrEnum):
    """How a full queue shows: as a status, or inside a 200 stream (both happen in vLLM)."""

    STATUS = "status"
    EVENT = "event"


class CutKind(StrEnum):
    """How a stream is cut."""

    RESET = "reset"
    ERROR = "error"


@dataclass(slots=True)
class Cut:
    """The next `times` streams are cut once they sent `after_tokens` tokens of a choice."""

    how: CutKind
    after_tokens: int
    times: int = 1


@dataclass(slots=True)
class FaultSwitches:
    """What is switched on now.

    Attributes:
        refuse: every generation request gets 503.
        queue_full: every generation request finds the queue full.
        garbage_metrics: /metrics answers 200 with bytes that are no metrics.
        unhealthy: /health answers 503.
        cut: cuts streams, None for no.
    """

    refuse: bool = False
    queue_full: QueueFull | None = None
    garbage_metrics: bool = False
    unhealthy: bool = False
    cut: Cut | None = None

    def take_cut(self, sent_tokens: int) -> CutKind | None:
        """Say whether, and how, a stream that sent so many tokens is cut now; count it."""
        cut = self.cut
        if cut is None or sent_tokens < cut.after_tokens:
            return None
        cut.times -= 1
        if cut.times <= 0:
            self.cut = None
        return cut.how
