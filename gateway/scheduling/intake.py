"""From a client's request to one that can be scheduled: its service, target, lengths and bounds."""

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.bounds import set_bounds, tightened
from gateway.scheduling.decisions import RefusalReason
from gateway.scheduling.model import InferenceRequest, LLMService, is_critical
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.service_directory import DEFAULT_SERVICE, ServiceDirectory
from gateway.scheduling.sub_flows import flow_of
from gateway.scheduling.token_estimates import TokenEstimates
from gateway.scheduling.tracked_request import TrackedRequest


class Intake:
    """Looks up and estimates all that is known of a request before it is served."""

    def __init__(
        self,
        *,
        services: ServiceDirectory,
        ledger: BackendLedger,
        estimates: TokenEstimates,
        policy: SchedulingPolicy,
    ) -> None:
        """Take objectives and patience from `policy`."""
        self._services = services
        self._ledger = ledger
        self._estimates = estimates
        self._policy = policy
        self._sequence = 0

    def reconfigure(self, policy: SchedulingPolicy) -> None:
        """Use other services, objectives and timeouts for arrivals from now on."""
        self._policy = policy
        self._services.reconfigure(policy.pool)

    def track(self, request: InferenceRequest, *, now: float) -> TrackedRequest | RefusalReason:
        """Begin a request's life, or say why it can have none here."""
        service = self._services.find(request.service)
        if service is None:
            return RefusalReason.UNKNOWN_MODEL
        target = request.target or self._services.draw_target(service, request.model)
        if target is None:
            return RefusalReason.NO_TARGET_MODEL
        if not self._ledger.knows(target) and not self._ledger.is_empty:
            if service.name == DEFAULT_SERVICE:
                return RefusalReason.UNKNOWN_MODEL
            return RefusalReason.NO_TARGET_MODEL
        if self._policy.pool.trusts_client_slo:
            service = tightened(service, request)
        self._sequence += 1
        tracked = TrackedRequest(
            request=request,
            service=service,
            target=target,
            arrived_at=now,
            sequence=self._sequence,
        )
        tracked.prompt_tokens = tracked.uncached_tokens = self._estimates.prompt_tokens(request)
        if request.prefix_blocks and request.prompt_bytes:
            share = request.prefix_block_bytes / request.prompt_bytes
            tracked.block_tokens = tracked.prompt_tokens * share
        tracked.expected_output_tokens = self._estimates.output_tokens(request)
        tracked.expires_at = now + self._patience_s(service)
        if self._policy.fairness.sub_flows:
            tracked.sub_flow = flow_of(request.fairness_id)
        if request.broke_at:
            self.leave_out_broken(tracked)
        set_bounds(tracked, self._policy.pool.default_objective)
        return tracked

    def leave_out_broken(self, tracked: TrackedRequest) -> None:
        """Count servers where the answer broke off as tried, while another in use is not.

        To be asked again after an attempt at the rest has failed.
        """
        broke_at = tracked.request.broke_at
        tried = tuple(each for each in tracked.tried if each[0] not in broke_at)
        broken = []
        others = False
        for backend in self._ledger.serving(tracked.target):
            life = (backend.id, backend.lives)
            if backend.id in broke_at:
                broken.append(life)
            else:
                others |= life not in tried and not backend.ejected
        tracked.tried = (*broken, *tried) if others else tried

    def lift_bounds(self, tracked: TrackedRequest) -> None:
        """Steer a request whose objective no server can meet by the pool's default instead."""
        tracked.impossible = True
        default = self._policy.pool.default_objective
        tracked.ttft_bound_s = float("inf") if default.ttft_s is None else default.ttft_s
        tracked.tpot_bound_s = default.tpot_s

    def _patience_s(self, service: LLMService) -> float:
        """How long a request of the service may wait: batch work may be more patient than most."""
        own_s = service.max_queue_wait_s
        if own_s is None or is_critical(service.priority):
            return self._policy.queue.timeout_s
        return own_s
