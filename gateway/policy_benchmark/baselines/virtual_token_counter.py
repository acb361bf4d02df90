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
        """`weights` names all services."""
        self._weights = weights
        self._counters = dict.fromkeys(weights, 0.0)
        self._queues: dict[ServiceName, deque[InferenceRequest]] = {
            name: deque() for name in weights
        }
        self._last_left = next(iter(weights))

    def push(self, request: InferenceRequest) -> None:
        """Queue within the service; lift a service that comes back."""
        queue = self._queues[request.service]
        if not queue:
            waiting = [self._counters[name] for name, q in self._queues.items() if q]
            floor = min(waiting, default=self._counters[self._last_left])
            self._counters[request.service] = max(self._counters[request.service], floor)
        queue.append(request)

    def pop(self) -> InferenceRequest | None:
        """The oldest request of the service with the smallest counter; ties by configuration."""
        waiting = [name for name, queue in self._queues.items() if queue]
        if not waiting:
            return None
        name = min(waiting, key=self._counters.__getitem__)
        request = self._queues[name].popleft()
        if not self._queues[name]:
            self._last_left = name
        self._counters[name] += INPUT_COST * estimated_tokens(request) / self._weights[name]
        return request

    def served(self, service: ServiceName, output_tokens: int) -> None:
        """Charge output tokens."""
        self._counters[service] += OUTPUT_COST * output_tokens / self._weights[service]
