"""Which services have had more than their ceiling of the tokens dispatched lately."""

from collections import deque
from typing import Final

from gateway.scheduling.model import LLMService, ServiceName
from gateway.scheduling.tracked_request import TrackedRequest

_WINDOWS_S: Final = (2, 30)
"""The long one is what a ceiling is of. By it alone a burst would first take all for a while, and
again whenever that first while leaves the window; the short one keeps it to its share from the
start."""


class _Window:
    """Tokens per service over the last so many seconds, in buckets of one."""

    __slots__ = ("_buckets", "_length_s", "_of_service", "_total")

    def __init__(self, length_s: int) -> None:
        self._length_s = length_s
        self._buckets: deque[tuple[int, dict[ServiceName, int]]] = deque()
        self._of_service: dict[ServiceName, int] = {}
        self._total = 0

    def add(self, name: ServiceName, tokens: int, *, now: float) -> None:
        self._forget_old(now)
        second = int(now)
        if not self._buckets or self._buckets[-1][0] != second:
            self._buckets.append((second, {}))
        bucket = self._buckets[-1][1]
        bucket[name] = bucket.get(name, 0) + tokens
        self._of_service[name] = self._of_service.get(name, 0) + tokens
        self._total += tokens

    def share(self, name: ServiceName, *, now: float) -> float:
        self._forget_old(now)
        return self._of_service.get(name, 0) / self._total if self._total else 0.0

    def _forget_old(self, now: float) -> None:
        oldest = int(now) - self._length_s
        while self._buckets and self._buckets[0][0] <= oldest:
            for name, tokens in self._buckets.popleft()[1].items():
                self._of_service[name] -= tokens
                self._total -= tokens


class TokenShares:
    """Shares of the services in the tokens (prompt and expected answer) of dispatched requests."""

    def __init__(self) -> None:
        """Start with nothing dispatched."""
        self._windows = tuple(_Window(length_s) for length_s in _WINDOWS_S)

    def dispatched(self, tracked: TrackedRequest, *, now: float) -> None:
        """Take in one dispatch."""
        tokens = tracked.prompt_tokens + tracked.expected_output_tokens
        for window in self._windows:
            window.add(tracked.service.name, tokens, now=now)

    def is_above(self, service: LLMService, *, now: float) -> bool:
        """Whether the service has a ceiling and has had more than that."""
        ceiling = service.max_share
        if ceiling is None:
            return False
        return any(window.share(service.name, now=now) > ceiling for window in self._windows)
