"""`vtc`: the service that has been served the fewest weighted tokens goes next.

A counter per service grows by 1 per input token at dispatch and by 2 per output token as they come,
divided by the service's weight. A service whose queue was empty is lifted, on its return, to the
smallest counter of those that wait, or to the counter of the last one that left the queue. Source:
Sheng et al., Fairness in Serving Large Language Models, OSDI'24, algorithm 2.
"""

from collections import deque
from collections.abc import Mapping

from gateway.policy_benchmark.baselines.server_view import estimated_tokens
from gateway.scheduling.model import InferenceRequest, ServiceName

INPUT_COST = 1.0
OUTPUT_COST = 2.0


class VirtualTokenCounter:
    """Least served first."""

    def __init__(self, weights: Mapping[ServiceName, float]) -> None:
        """A service without a weight has 1."""
        self._weights = weights
        self._counters: dict[ServiceName, float] = {}
        self._queues: dict[ServiceName, deque[InferenceRequest]] = {}
        self._last_left: ServiceName | None = None

    def push(self, request: InferenceRequest) -> None:
        """Queue within the service; lift a service that comes back."""
        service = request.service
        queue = self._queues.setdefault(service, deque())
        if not queue:
            waiting = [self._counters[name] for name, q in self._queues.items() if q]
            last = 0.0 if self._last_left is None else self._counters[self._last_left]
            floor = min(waiting, default=last)
            self._counters[service] = max(self._counters.get(service, 0.0), floor)
        queue.append(request)

    def pop(self) -> InferenceRequest | None:
        """The oldest request of the service with the smallest counter; ties by first arrival."""
        waiting = [name for name, queue in self._queues.items() if queue]
        if not waiting:
            return None
        name = min(waiting, key=self._counters.__getitem__)
        request = self._queues[name].popleft()
        if not self._queues[name]:
            self._last_left = name
        self._charge(name, INPUT_COST * estimated_tokens(request))
        return request

    def served(self, service: ServiceName, output_tokens: int) -> None:
        """Charge output tokens."""
        self._charge(service, OUTPUT_COST * output_tokens)

    def _charge(self, service: ServiceName, cost: float) -> None:
        self._counters[service] += cost / self._weights.get(service, 1.0)
