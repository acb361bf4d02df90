"""May this server take this request now? Open is a property of (request, server)."""

from gateway.scheduling.backend_ledger import BackendState
from gateway.scheduling.policy import CapacityPolicy
from gateway.scheduling.tracked_request import TrackedRequest


class Capacity:
    """The conditions under which a server is open; all must hold.

    That the server is healthy, not draining and serves the model is the ledger's index already.
    """

    def __init__(self, *, policy: CapacityPolicy) -> None:
        """Take limits from `policy`."""
        self._most_sequences = policy.max_requests_per_backend
        self._most_engine_waiting = policy.max_engine_waiting

    def is_full(self, backend: BackendState) -> bool:
        """Whether the server is closed to every request: at its limit, or its own queue grows.

        We queue here, not in the engine, where a request can be neither reordered nor moved.
        """
        return backend.sequences + backend.external_running >= self._most_sequences or (
            backend.load.waiting is not None
            and backend.load.waiting - (backend.load.waiting_deferred or 0)
            > self._most_engine_waiting
        )

    def is_open(self, backend: BackendState, tracked: TrackedRequest) -> bool:
        """Whether the request would run there at once."""
        if self.is_full(backend):
            return False
        adapter = backend.adapter_of(tracked.target)
        if adapter is not None and not backend.adapters.admits(adapter):
            return False
        if not backend.in_flight:
            return True  # what is too large for any server runs alone on one
        last = tracked.request.choices - 1  # is_full has looked at the first sequence
        if backend.sequences + backend.external_running + last >= self._most_sequences:
            return False
        kv_tokens = backend.kv_capacity_tokens
        needed = tracked.prompt_tokens + tracked.expected_output_tokens
        return kv_tokens is None or backend.kv_reserved_tokens + needed <= kv_tokens
