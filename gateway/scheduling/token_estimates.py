"""Token counts before the engine has told them: learned per service from finished answers."""

from typing import Final

from gateway.scheduling.model import InferenceRequest, ServiceName, TokenUsage

BYTES_PER_TOKEN_PRIOR: Final = 4.0
OUTPUT_TOKENS_PRIOR: Final = 200.0
_PRIOR_SAMPLES: Final = 10.0
_MEMORY_SAMPLES: Final = 200.0
"""A running mean starts as the prior with the weight of ten samples and forgets over about 200."""


class _RunningMean:
    __slots__ = ("mean", "weight")

    def __init__(self, prior: float) -> None:
        self.mean = prior
        self.weight = _PRIOR_SAMPLES

    def learn(self, value: float) -> None:
        self.weight = min(self.weight + 1.0, _MEMORY_SAMPLES)
        self.mean += (value - self.mean) / self.weight


class _ServiceEstimates:
    __slots__ = ("bytes_per_token", "output_tokens", "tokens_per_event")

    def __init__(self) -> None:
        self.bytes_per_token = _RunningMean(BYTES_PER_TOKEN_PRIOR)
        self.output_tokens = _RunningMean(OUTPUT_TOKENS_PRIOR)
        self.tokens_per_event = _RunningMean(1.0)


class TokenEstimates:
    """Per-service ratios: bytes per prompt token, output tokens, tokens per stream event."""

    def __init__(self) -> None:
        """Start from priors: 4 bytes a token, 200 output tokens, one token an event."""
        self._services: dict[ServiceName, _ServiceEstimates] = {}

    def prompt_tokens(self, request: InferenceRequest) -> int:
        """Length of the prompt in tokens, >= 1: exact where the client sent ids."""
        if request.prompt_tokens is not None:
            return max(1, request.prompt_tokens)
        ratio = self._of(request.service).bytes_per_token.mean
        return max(1, int(request.prompt_bytes / ratio + 0.5))

    def output_tokens(self, request: InferenceRequest) -> int:
        """Expected output tokens, all choices together, capped by `max_tokens`."""
        if not request.generates:
            return 0
        expected = int(self._of(request.service).output_tokens.mean + 0.5)
        if request.max_tokens is not None:
            expected = min(expected, request.max_tokens)
        return max(1, expected) * request.choices

    def tokens_of_events(self, service: ServiceName, events: int) -> int:
        """Output tokens that a number of stream events stands for."""
        return int(events * self._of(service).tokens_per_event.mean + 0.5)

    def tokens_per_event(self, service: ServiceName) -> float:
        """Output tokens that a stream event stands for."""
        return self._of(service).tokens_per_event.mean

    def learn(self, request: InferenceRequest, usage: TokenUsage) -> None:
        """Take in one finished answer; counts that the engine did not tell teach nothing."""
        estimates = self._of(request.service)
        if usage.prompt_tokens and request.prompt_tokens is None and request.prompt_bytes:
            estimates.bytes_per_token.learn(request.prompt_bytes / usage.prompt_tokens)
        if usage.completion_tokens and request.generates:
            estimates.output_tokens.learn(usage.completion_tokens / request.choices)
            if usage.events:
                estimates.tokens_per_event.learn(usage.completion_tokens / usage.events)

    def _of(self, service: ServiceName) -> _ServiceEstimates:
        found = self._services.get(service)
        if found is None:
            found = self._services[service] = _ServiceEstimates()
        return found
