"""The nouns of the virtual fleet: what goes in, what comes out, how it is set up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gateway.scheduling.decisions import Decision, RefusalReason
from gateway.scheduling.events import SchedulerEvent
from gateway.scheduling.model import BackendId, Forecast, InferenceRequest, RequestId


class FleetPolicy(Protocol):
    """What the fleet drives: the real scheduler, or a baseline that answers the same events."""

    def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
        """Take one fact, return the decisions that follow from it."""
        ...

    def next_deadline(self) -> float | None:
        """When `DeadlinePassed` is wanted next, or None."""
        ...


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """One request of a workload: what the gateway sees of it, and its true lengths.

    Attributes:
        at: arrival at the gateway, seconds.
        request: all that a policy may know.
        prompt_tokens: true length of the prompt.
        output_tokens: true length of the answer.
        block_tokens: tokens in each of `request.prefix_blocks`.
    """

    at: float
    request: InferenceRequest
    prompt_tokens: int
    output_tokens: int
    block_tokens: int = 16


class Ending(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    REFUSED = "refused"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What became of a request; instants as the gateway saw them, seconds.

    Attributes:
        planned: the request.
        ending: UNFINISHED where the simulation was cut off.
        ended_at: last token, refusal or failure.
        backend_id: the last server it was dispatched to.
        dispatched_at: when that was.
        first_token_at: first token of the answer.
        forecast: what the policy predicted at that dispatch.
        ahead: requests in flight on that server then.
        reason: of a refusal.
    """

    planned: FleetRequest
    ending: Ending
    ended_at: float
    backend_id: BackendId | None = None
    dispatched_at: float | None = None
    first_token_at: float | None = None
    forecast: Forecast | None = None
    ahead: int = 0
    reason: RefusalReason | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """At this instant the last `kill` living servers die for good."""

    at: float
    kill: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What surrounds the engines; seconds.

    Attributes:
        base_model: model name that runs without an adapter.
        adapters: the other models that every server offers.
        poll_interval_s: between two scrapes of one server by one gateway.
        poll_jitter: each interval is longer or shorter by up to this share.
        poll_latency_s: from the scrape to the scheduler (the youngest age of a report).
        gateway_delay_s: between gateway and engine, each way.
        progress_interval_s: between two progress reports of a server; None: none are made, for
            policies that ignore them.
        detection_s: from the death of a server to `BackendLeft`.
        faults: servers that die.
    """

    base_model: str = "base"
    adapters: tuple[str, ...] = ()
    poll_interval_s: float = 0.1
    poll_jitter: float = 0.1
    poll_latency_s: float = 0.005
    gateway_delay_s: float = 0.001
    progress_interval_s: float | None = 0.25
    detection_s: float = 0.2
    faults: tuple[Fault, ...] = ()


def _ignore_outcome(_outcome: RequestOutcome) -> None:
    """Drop it."""


@dataclass(frozen=True, slots=True)
class FleetListeners:
    """Who is told of what happens.

    Attributes:
        on_outcome: gets each request's end.
        on_event: gets each event of a gateway: the gateway's number, the instant, the event and the
            decisions, before they are carried out.
        in_flight: the fleet keeps the requests that have not ended here, for who may know them.
    """

    on_outcome: Callable[[RequestOutcome], None] = _ignore_outcome
    on_event: Callable[[int, float, SchedulerEvent, Sequence[Decision]], None] | None = None
    in_flight: dict[RequestId, FleetRequest] = field(default_factory=dict)
