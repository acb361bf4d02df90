"""Feeds events to a baseline; a short notation for hand-worked decisions."""

from collections.abc import Sequence

from gateway.scheduling.decisions import Decision, Dispatch
from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    DispatchFailed,
    FailureKind,
    FirstTokenReceived,
    RequestArrived,
    ResponseFinished,
    ResponseProgressed,
)
from gateway.scheduling.model import (
    BackendId,
    BackendLoad,
    InferenceRequest,
    RequestId,
    ServedModel,
    ServiceName,
    TokenUsage,
)
from gateway.simulator.fleet_model import FleetPolicy


def request(
    request_id: str,
    *,
    service: str = "chat",
    model: str = "base",
    prompt_tokens: int = 100,
    blocks: tuple[int, ...] = (),
) -> InferenceRequest:
    size = round(prompt_tokens * 4.2)
    return InferenceRequest(
        id=RequestId(request_id),
        service=ServiceName(service),
        model=model,
        prompt_bytes=size,
        body_bytes=size,
        prefix_blocks=blocks,
    )


class BaselineRig:
    """One policy and its servers."""

    def __init__(self, policy: FleetPolicy, *servers: str) -> None:
        self.policy = policy
        for server in servers:
            policy.handle(BackendJoined(BackendId(server), (ServedModel("base"),)), now=0.0)

    def arrive(
        self,
        request_id: str,
        *,
        service: str = "chat",
        model: str = "base",
        prompt_tokens: int = 100,
        blocks: tuple[int, ...] = (),
    ) -> str:
        """Where the request goes, `refused`, or `queued`."""
        arrived = request(
            request_id, service=service, model=model, prompt_tokens=prompt_tokens, blocks=blocks
        )
        decisions = self.policy.handle(RequestArrived(arrived), now=0.0)
        return self._only(decisions)

    def finish(self, request_id: str, *, output_tokens: int = 10, now: float = 0.0) -> list[str]:
        usage = TokenUsage(100, output_tokens)
        decisions = self.policy.handle(ResponseFinished(RequestId(request_id), usage), now=now)
        return [self._shown(decision) for decision in decisions]

    def first_token(self, request_id: str, *, now: float = 0.0) -> None:
        self.policy.handle(FirstTokenReceived(RequestId(request_id)), now=now)

    def progress(self, server: str, request_id: str, tokens: int) -> None:
        progress = ((RequestId(request_id), tokens),)
        self.policy.handle(ResponseProgressed(BackendId(server), progress, 0.0), now=0.0)

    def fail(self, request_id: str, *, retryable: bool = True) -> list[str]:
        failed = DispatchFailed(RequestId(request_id), FailureKind.CONNECT, retryable)
        return [self._shown(d) for d in self.policy.handle(failed, now=0.0)]

    def leave(self, server: str) -> None:
        self.policy.handle(BackendLeft(BackendId(server)), now=0.0)

    def report(
        self,
        server: str,
        *,
        waiting: int = 0,
        kv: float = 0.0,
        adapters: Sequence[str] = (),
        max_loras: int | None = None,
    ) -> None:
        load = BackendLoad(
            waiting=waiting, kv_usage=kv, active_adapters=tuple(adapters), max_loras=max_loras
        )
        self.policy.handle(BackendLoadReported(BackendId(server), load, 0.0), now=0.0)

    def _only(self, decisions: Sequence[Decision]) -> str:
        assert len(decisions) <= 1
        return self._shown(decisions[0]) if decisions else "queued"

    @staticmethod
    def _shown(decision: Decision) -> str:
        return decision.backend_id if isinstance(decision, Dispatch) else "refused"
