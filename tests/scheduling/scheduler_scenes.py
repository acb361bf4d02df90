"""A scheduler with two services and a few servers, and short ways to read its decisions."""

from collections.abc import Sequence

from gateway.scheduling.decisions import Decision, Dispatch, RefusalReason
from gateway.scheduling.model import CRITICAL, LLMService
from gateway.scheduling.policy import PickerKind, QueuePolicy, RetryPolicy
from tests.builders import make_policy, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler

CHAT = make_service("chat", priority=CRITICAL)
BATCH = make_service("batch")


def scheduler_of(
    *backends: str,
    slots: int = 1,
    services: Sequence[LLMService] = (CHAT, BATCH),
    queue: QueuePolicy | None = None,
    retry: RetryPolicy | None = None,
) -> CheckedScheduler:
    """Servers of two adapters with these names and so many places each."""
    policy = make_policy(
        *services, slots=slots, queue=queue, retry=retry, picker=PickerKind.LEAST_OUTSTANDING
    )
    checked = CheckedScheduler(policy)
    for backend in backends:
        checked.join(backend, "lora-a", "lora-b")
    return checked


def dispatched(decisions: Sequence[Decision]) -> list[tuple[str, str]]:
    """(request, server) of decisions that are all dispatches."""
    found = [(d.request_id, d.backend_id) for d in decisions if isinstance(d, Dispatch)]
    assert len(found) == len(decisions), decisions
    return [(str(request_id), str(backend_id)) for request_id, backend_id in found]


def refused(decisions: Sequence[Decision]) -> list[tuple[str, str, RefusalReason]]:
    """(kind, request, reason) of decisions that are all refusals."""
    found = [
        (type(d).__name__, str(d.request_id), d.reason)
        for d in decisions
        if not isinstance(d, Dispatch)
    ]
    assert len(found) == len(decisions), decisions
    return found
