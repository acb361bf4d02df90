"""The nouns of scheduling: requests, objectives, services, servers and what servers report.

Terms are those of docs/architecture.md. Time is float seconds of one monotonic clock (`_s` for
durations, `_at` for instants); tokens are tokens, bytes are bytes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, NewType

import msgspec

RequestId = NewType("RequestId", str)
BackendId = NewType("BackendId", str)
ServiceName = NewType("ServiceName", str)

CRITICAL: Final = 0
"""Priority of a Critical service; higher levels go first."""
NON_CRITICAL: Final = -1
"""Priority of a Non-Critical service; every level below 0 is Non-Critical."""


def is_critical(priority: int) -> bool:
    """Whether a priority level is in the Critical part of the scale."""
    return priority >= CRITICAL


@dataclass(frozen=True, slots=True)
class LatencyObjective:
    """The latency SLO of a service; a bound that is None is not part of it.

    Bounds are seconds (per token for TPOT and NTPOT). `percentile` in (0, 1) is the share of
    requests that must meet the objective over the fairness window; where bounds were configured
    with different percentiles it is the highest of them.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    ntpot_s: float | None = None
    percentile: float = 0.95

    def is_met(
        self,
        *,
        ttft_s: float | None,
        e2e_s: float,
        output_tokens: int,
    ) -> bool:
        """Judge one finished request.

        Args:
            ttft_s: arrival at the gateway to first token; None for an answer that was not
                streamed, which shows no first token.
            e2e_s: arrival to the last byte.
            output_tokens: tokens of the answer.
        """
        if self.ntpot_s is not None and e2e_s > self.ntpot_s * max(1, output_tokens):
            return False
        if ttft_s is None:
            if self.ttft_s is None:
                return self.tpot_s is None or e2e_s <= self.tpot_s * max(1, output_tokens)
            return e2e_s <= self.ttft_s + (self.tpot_s or 0.0) * max(0, output_tokens - 1) or (
                self.tpot_s is None
            )
        if self.ttft_s is not None and ttft_s > self.ttft_s:
            return False
        return (
            self.tpot_s is None
            or output_tokens <= 1
            or (e2e_s - ttft_s) <= self.tpot_s * (output_tokens - 1)
        )


@dataclass(frozen=True, slots=True)
class TargetModel:
    """A model that a service may be served by, with its share of the traffic split."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LLMService:
    """A workload on a pool, known by the model name that its clients send.

    Attributes:
        name: unique name; the metric label.
        model: the model name that clients send.
        targets: models that answer; draws are weighted. Empty means the client's model itself.
        objective: the latency SLO, or None.
        priority: higher first; 0 and above is Critical, below 0 Non-Critical.
        fairness_weight: weight of this service's burn among services of one priority, > 0.
        max_queue_wait_s: a Non-Critical request that would wait longer is refused at once;
            None means the pool's queue timeout.
        max_share: optional ceiling, in (0, 1], on the share of tokens over the last 30 s while
            other services wait.
    """

    name: ServiceName
    model: str
    targets: tuple[TargetModel, ...] = ()
    objective: LatencyObjective | None = None
    priority: int = NON_CRITICAL
    fairness_weight: float = 1.0
    max_queue_wait_s: float | None = None
    max_share: float | None = None


@dataclass(frozen=True, slots=True)
class LLMServerPool:
    """Model servers that serve the same base model and the same set of LoRA adapters.

    `services` are those configured on the pool. Requests for other models the pool serves are
    accepted as Non-Critical under `default_service` when `accept_unregistered_models` is true.
    `default_objective` serves services without an objective of their own (capacity only).
    `trusts_client_slo` lets the bounds that a client sends tighten its service's objective for the
    request; else they only steer the choice of its server.
    """

    name: str
    services: tuple[LLMService, ...] = ()
    default_objective: LatencyObjective = LatencyObjective(ttft_s=10.0, tpot_s=0.2)
    accept_unregistered_models: bool = True
    trusts_client_slo: bool = False


class RequestPhase(StrEnum):
    """Where a request is in its life; see `scheduler.TRANSITIONS`."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    STREAMING = "streaming"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EVICTED = "evicted"


class InferenceRequest(msgspec.Struct, frozen=True):
    """What scheduling needs to know of one request.

    Attributes:
        id: unique while the request lives.
        service: name of the configured service, or the pool's default service name.
        model: the model name that the client sent.
        prompt_bytes: size of the prompt's text in bytes (what tokens are estimated from).
        body_bytes: size of the whole body, counted against the queue's byte limits.
        prompt_tokens: exact length if the client sent token ids, else None.
        max_tokens: the client's bound on output tokens, or None.
        choices: number of sequences the engine runs for this request (`n`), >= 1.
        streamed: whether the client asked for a stream (its first token is then visible).
        generates: False for embeddings and the like: one prefill, no output tokens.
        prefix_blocks: chained hashes of the prompt's leading blocks, longest prefix last.
        prefix_block_bytes: bytes of the prompt in each of them.
        ttft_slo_s: the client's own bound where one was sent; may only tighten picking.
        tpot_slo_s: likewise.
        fairness_id: sub-flow within the service, or None.
        target: the model to send where it was drawn before, for the rest of a broken answer.
        broke_at: servers where the answer broke off so far; where there are others, they are not
            asked for the rest.
    """

    id: RequestId
    service: ServiceName
    model: str
    prompt_bytes: int
    body_bytes: int
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    choices: int = 1
    streamed: bool = True
    generates: bool = True
    prefix_blocks: tuple[int, ...] = ()
    prefix_block_bytes: int = 512
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    fairness_id: str | None = None
    target: str | None = None
    broke_at: tuple[BackendId, ...] = ()


class ServedModel(NamedTuple):
    """One entry of a server's `/v1/models`: `parent` is the base model of a LoRA adapter."""

    name: str
    parent: str | None = None
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """What one scrape of a server's /metrics said; a field is None where the page had no such line.

    Gauges are summed over the page's engines; counters are totals since the server's start.

    Attributes:
        running: sequences in the engine's batch.
        waiting: requests in the engine's own queue.
        waiting_deferred: those of them that wait for a LoRA slot.
        kv_usage: share of KV blocks in use, 0..1.
        kv_blocks: number of KV blocks, and `block_tokens` tokens in each.
        max_loras: adapter slots in one batch.
        active_adapters: adapters with requests in flight, of the newest lora_requests_info series.
        prompt_tokens_total, generation_tokens_total, preemptions_total, steps_total,
        prefix_queries_total, prefix_hits_total: counters (prefix ones in tokens).
        largest_step_tokens: upper bound of the histogram bucket of the largest step so far; near
            max_num_batched_tokens once a long prompt has been seen.
    """

    running: int | None = None
    waiting: int | None = None
    waiting_deferred: int | None = None
    kv_usage: float | None = None
    kv_blocks: int | None = None
    block_tokens: int | None = None
    max_loras: int | None = None
    active_adapters: tuple[str, ...] | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    preemptions_total: float | None = None
    steps_total: float | None = None
    prefix_queries_total: float | None = None
    prefix_hits_total: float | None = None
    largest_step_tokens: int | None = None


class TokenUsage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of one finished answer; a field is None where it is not known exactly.

    `events` counts the stream's data events, from which output tokens are estimated when the
    answer carried no usage.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    events: int = 0


class Forecast(NamedTuple):
    """Predicted times of one request on one server, counted from now; mean and 90th percentile."""

    ttft_s: float
    ttft_p90_s: float
    tpot_s: float
    tpot_p90_s: float
