"""`clairvoyant_greedy`: knows the engines' true state, all output lengths and even their noise.

For each arrival it forks every engine with the request added, runs the forks to the end, and counts
the requests that would newly miss their objective, the new one included. The server with the fewest
takes it, ties by the earlier end. A request that must miss everywhere, or whose every place would
make another one miss, is refused: refusing costs one miss too and leaves room. A strong reference,
not a limit: it does not foresee arrivals. About 50 ms per request: at most `MAX_REQUESTS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.policy_benchmark.baselines.immediate_dispatch import NO_FORECAST
from gateway.scheduling.decisions import Decision, Dispatch, Evict, RefusalReason, Reject
from gateway.scheduling.events import (
    BackendLeft,
    DispatchFailed,
    FirstTokenReceived,
    RequestArrived,
    SchedulerEvent,
)
from gateway.scheduling.model import (
    BackendId,
    InferenceRequest,
    LatencyObjective,
    RequestId,
    ServiceName,
)
from gateway.simulator.engine import Engine, EngineRequest, Finished, FirstToken
from gateway.simulator.fleet_model import FleetRequest

MAX_REQUESTS = 2_000


@dataclass(frozen=True, slots=True)
class Oracle:
    """What nobody could know: true engines and true requests, and how the fleet delays messages."""

    engines: Mapping[BackendId, Engine]
    in_flight: Mapping[RequestId, FleetRequest]
    objectives: Mapping[ServiceName, LatencyObjective | None]
    base_model: str
    delay_s: float


@dataclass(slots=True)
class _Future:
    """How a server's requests will end: who misses, and when the new one finishes."""

    missed: set[RequestId] = field(default_factory=set)
    finished_at: float = 0.0


class ClairvoyantGreedy:
    """Fewest new misses."""

    def __init__(self, oracle: Oracle) -> None:
        """Look into the future of `oracle.engines`."""
        self._oracle = oracle
        self._missed: dict[BackendId, set[RequestId]] = {key: set() for key in oracle.engines}
        self._on_the_way: dict[BackendId, list[tuple[float, EngineRequest]]] = {
            key: [] for key in oracle.engines
        }
        self._first_at: dict[RequestId, float] = {}

    def handle(self, event: SchedulerEvent, *, now: float) -> Sequence[Decision]:
        """Take one fact, return what follows from it."""
        match event:
            case RequestArrived():
                return [self._decide(event.request, now)]
            case FirstTokenReceived():
                self._first_at[event.request_id] = now
            case BackendLeft():
                self._missed.pop(event.backend_id, None)
            case DispatchFailed() if event.retryable:
                return [Evict(event.request_id, RefusalReason.ATTEMPTS_EXHAUSTED)]
            case _:
                pass
        return ()

    def next_deadline(self) -> None:
        """Nothing ever waits."""
        return

    def _decide(self, request: InferenceRequest, now: float) -> Decision:
        best: tuple[int, float, BackendId] | None = None
        futures: dict[BackendId, _Future] = {}
        for backend_id, missed in self._missed.items():
            future = futures[backend_id] = self._foresee(backend_id, request, now)
            rank = (len(future.missed - missed), future.finished_at, backend_id)
            if best is None or rank < best:
                best = rank
        if best is None or best[0] > 0:
            return Reject(request.id, RefusalReason.NO_CAPACITY)
        chosen = best[2]
        self._missed[chosen] = futures[chosen].missed
        arrives = now + self._oracle.delay_s
        self._on_the_way[chosen].append((arrives, self._engine_request(request)))
        return Dispatch(request.id, chosen, request.model, NO_FORECAST)

    def _foresee(self, backend_id: BackendId, request: InferenceRequest, now: float) -> _Future:
        """Run a fork of the engine, with the request added, until nothing is left."""
        oracle = self._oracle
        engine = oracle.engines[backend_id].fork()
        coming = [pair for pair in self._on_the_way[backend_id] if pair[0] > now]
        self._on_the_way[backend_id] = coming
        for at, other in [*coming, (now + oracle.delay_s, self._engine_request(request))]:
            engine.submit(other, now=at)
        first_at: dict[str, float] = {}
        future = _Future()
        at_next = engine.next_event_at()
        while at_next is not None:
            for event in engine.advance(at_next):
                if isinstance(event, FirstToken):
                    first_at[event.request_id] = event.at + oracle.delay_s
                elif isinstance(event, Finished):
                    request_id = RequestId(event.request_id)
                    ended_at = event.at + oracle.delay_s
                    first = first_at.get(request_id, self._first_at.get(request_id, ended_at))
                    if not self._is_met(request_id, first, ended_at):
                        future.missed.add(request_id)
                    if request_id == request.id:
                        future.finished_at = ended_at
            at_next = engine.next_event_at()
        return future

    def _is_met(self, request_id: RequestId, first_at: float, ended_at: float) -> bool:
        planned = self._oracle.in_flight[request_id]
        objective = self._oracle.objectives[planned.request.service]
        return objective is None or objective.is_met(
            ttft_s=first_at - planned.at,
            e2e_s=ended_at - planned.at,
            output_tokens=planned.output_tokens,
        )

    def _engine_request(self, request: InferenceRequest) -> EngineRequest:
        planned = self._oracle.in_flight[request.id]
        return EngineRequest(
            id=request.id,
            adapter=None if request.model == self._oracle.base_model else request.model,
            prompt_tokens=planned.prompt_tokens,
            output_tokens=planned.output_tokens,
            prefix_blocks=request.prefix_blocks,
            prefix_block_tokens=planned.block_tokens,
            choices=request.choices,
        )
