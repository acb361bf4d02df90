"""`fcfs`: one queue, first come first served, for all services and priorities."""

from collections import deque

from gateway.scheduling.model import InferenceRequest, ServiceName


class FirstCome:
    """Order of arrival."""

    def __init__(self) -> None:
        """Start empty."""
        self._queue: deque[InferenceRequest] = deque()

    def push(self, request: InferenceRequest) -> None:
        """Queue at the end."""
        self._queue.append(request)

    def pop(self) -> InferenceRequest | None:
        """The oldest."""
        return self._queue.popleft() if self._queue else None

    def served(self, service: ServiceName, output_tokens: int) -> None:
        """What services got does not matter."""
