"""Facts that go into the scheduler: the closed union `SchedulerEvent`.

Every event is plain data, so that a journal line holds it whole and a replay can feed it again.
"""

from enum import StrEnum
from typing import Final

import msgspec

from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    InferenceRequest,
    RequestId,
    ServedModel,
    TokenUsage,
)
from gateway.scheduling.policy import SchedulingPolicy


class FailureKind(StrEnum):
    """How an attempt on a server failed. Only `retryable` ones may be tried elsewhere."""

    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    STALLED = "stalled"
    STREAM_ERROR = "stream_error"
    PROTOCOL = "protocol"
    UNRESPONSIVE = "unresponsive"
    """The server was found to hang while the request waited for its first byte."""


LOST: Final = frozenset({FailureKind.CONNECT, FailureKind.RESET, FailureKind.UNRESPONSIVE})
"""Failures of a server that is gone: no answer of a live one."""


class RequestArrived(msgspec.Struct, frozen=True):
    """A client's request; answered by exactly one Dispatch, Reject or Evict.

    Attributes:
        last_chunks: (server, arrival of its newest chunk) of servers with chunks since they were
            last named here: the phase of each engine's step. To name others too is harmless.
    """

    request: InferenceRequest
    last_chunks: tuple[tuple[BackendId, float], ...] = ()


class RequestCancelled(msgspec.Struct, frozen=True):
    """The client went away, and the request's upstream (if any) is known to be closed."""

    request_id: RequestId


class FirstTokenReceived(msgspec.Struct, frozen=True):
    """The first output token of a streamed answer arrived from the server."""

    request_id: RequestId


class ResponseProgressed(msgspec.Struct, frozen=True):
    """How far one server's streams have come; at most 4 times a second per server.

    Attributes:
        progress: (request, stream events so far) pairs; an event is about a token.
        last_chunk_at: when the newest chunk of this server arrived (phase of the engine's step).
    """

    backend_id: BackendId
    progress: tuple[tuple[RequestId, int], ...]
    last_chunk_at: float


class ResponseFinished(msgspec.Struct, frozen=True):
    """The server's answer ended. `ok` is False for a 4xx only; a broken stream is DispatchFailed.

    A 4xx has `usage` without tokens and is not the server's fault: it teaches nothing.
    """

    request_id: RequestId
    usage: TokenUsage
    ok: bool = True


class DispatchFailed(msgspec.Struct, frozen=True):
    """An attempt ended without a complete answer.

    Attributes:
        retryable: no byte has reached the client, so that another server may be tried.
    """

    request_id: RequestId
    kind: FailureKind
    retryable: bool


class BackendJoined(msgspec.Struct, frozen=True):
    """A server became usable, or its list of models changed. Repeating it updates the models."""

    backend_id: BackendId
    models: tuple[ServedModel, ...]


class BackendDraining(msgspec.Struct, frozen=True):
    """A server takes no new requests but finishes those it has. BackendJoined ends it."""

    backend_id: BackendId


class BackendLeft(msgspec.Struct, frozen=True):
    """A server is gone or unhealthy. Its requests in flight end by their own events.

    Attributes:
        for_good: it was taken out of the pool: what was learned of it is kept for a while only.
    """

    backend_id: BackendId
    for_good: bool = False


class BackendLoadReported(msgspec.Struct, frozen=True):
    """One scrape of a server's metrics; `taken_at` is when the page was asked for."""

    backend_id: BackendId
    load: BackendLoad
    taken_at: float


class DeadlinePassed(msgspec.Struct, frozen=True):
    """The instant that `next_deadline()` named has come (late or repeated is harmless)."""


class PoliciesChanged(msgspec.Struct, frozen=True):
    """A reload: new services and parameters; requests keep what they were admitted under."""

    policy: SchedulingPolicy


class DrainStarted(msgspec.Struct, frozen=True):
    """The gateway shuts down. It accepts no connections; what still comes over those that are
    open (a body that was on its way, the rest of a broken stream) is served like any other.
    """  # noqa: D205 - one sentence more


SchedulerEvent = (
    RequestArrived
    | RequestCancelled
    | FirstTokenReceived
    | ResponseProgressed
    | ResponseFinished
    | DispatchFailed
    | BackendJoined
    | BackendDraining
    | BackendLeft
    | BackendLoadReported
    | DeadlinePassed
    | PoliciesChanged
    | DrainStarted
)
