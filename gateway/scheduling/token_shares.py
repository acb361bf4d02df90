"""Which services have had more than their ceiling of the tokens dispatched lately."""

from collections import deque

from gateway.scheduling.model import LLMService, ServiceName
from gateway.scheduling.tracked_request import TrackedRequest

_WINDOW_S = 30


class TokenShares:
    """Tokens (prompt and expected answer) dispatched per service over the last 30 s.

    They are kept in buckets of one second.
    """

    def __init__(self) -> None:
        """Start with nothing dispatched."""
        self._buckets: deque[tuple[int, dict[ServiceName, float]]] = deque()
        self._tokens: dict[ServiceName, float] = {}
        self._total = 0.0

    def dispatched(self, tracked: TrackedRequest, *, now: float) -> None:
        """Take in one dispatch."""
        self._forget_old(now)
        second = int(now)
        if not self._buckets or self._buckets[-1][0] != second:
            self._buckets.append((second, {}))
        tokens = float(tracked.prompt_tokens + tracked.expected_output_tokens)
        name = tracked.service.name
        bucket = self._buckets[-1][1]
        bucket[name] = bucket.get(name, 0.0) + tokens
        self._tokens[name] = self._tokens.get(name, 0.0) + tokens
        self._total += tokens

    def is_above(self, service: LLMService, *, now: float) -> bool:
        """Whether the service has a ceiling and has had more than that."""
        if service.max_share is None:
            return False
        self._forget_old(now)
        return self._tokens.get(service.name, 0.0) > service.max_share * self._total

    def _forget_old(self, now: float) -> None:
        oldest = int(now) - _WINDOW_S
        while self._buckets and self._buckets[0][0] <= oldest:
            for name, tokens in self._buckets.popleft()[1].items():
                self._tokens[name] -= tokens
                self._total -= tokens
