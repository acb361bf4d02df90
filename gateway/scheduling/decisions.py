"""Orders that come out of the scheduler: the closed union `Decision`."""

from enum import StrEnum

import msgspec

from gateway.scheduling.model import BackendId, Forecast, RequestId


class RefusalReason(StrEnum):
    """Why a request was not admitted; wire.error_response maps each to an HTTP answer."""

    UNKNOWN_MODEL = "unknown_model"
    NO_TARGET_MODEL = "no_target_model"
    NO_CAPACITY = "no_capacity"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    NO_BACKEND = "no_backend"
    OBJECTIVE_IMPOSSIBLE = "objective_impossible"
    DISPLACED = "displaced"
    PREEMPTED = "preempted"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    DRAINING = "draining"
    DEADLINE = "deadline"
    """Of no decision: the shell ends a request whose deadline has passed."""


class Dispatch(msgspec.Struct, frozen=True):
    """Send the request to this server now; its capacity is already reserved there.

    Attributes:
        model: the model name to send (the drawn target of the service's split).
        forecast: predicted times on that server, from now.
        attempt: 1 for the first server tried, 2 for the second, ...
    """

    request_id: RequestId
    backend_id: BackendId
    model: str
    forecast: Forecast
    attempt: int = 1


class Reject(msgspec.Struct, frozen=True):
    """The request is refused on arrival. `retry_after_s` is None where retrying cannot help."""

    request_id: RequestId
    reason: RefusalReason
    retry_after_s: float | None = None


class Evict(msgspec.Struct, frozen=True):
    """A request that had been queued (or, where configured, dispatched) is given up."""

    request_id: RequestId
    reason: RefusalReason
    retry_after_s: float | None = None


Decision = Dispatch | Reject | Evict
