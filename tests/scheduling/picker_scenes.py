"""Servers and requests that pickers choose among and for."""

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.model import LatencyObjective
from gateway.scheduling.prediction import Prediction
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import BASE, make_backend, make_prediction, make_service, make_tracked


def loaded(backend_id: str, sequences: int, *adapters: str, external: float = 0.0) -> BackendState:
    """A server of lora-a and lora-b with so many sequences, holding the adapters."""
    backend = make_backend(backend_id, adapters=("lora-a", "lora-b"))
    backend.sequences = sequences
    backend.external_running = external
    for adapter in adapters:
        backend.adapters.acquire(adapter, now=0.0)
    return backend


def forecast_there(
    backend: BackendState, *, ttft_s: float = 0.5, tpot_s: float = 0.02
) -> Prediction:
    """A forecast of these means; lora-a has to be loaded where it is not resident."""
    cold = not backend.adapters.is_resident("lora-a")
    prediction = make_prediction(ttft_s=ttft_s, tpot_s=tpot_s)
    prediction.cold_adapter = cold
    return prediction


def objective_request(
    *,
    ttft_s: float = 1.0,
    tpot_s: float | None = 0.05,
    target: str = BASE,
    prefix_blocks: tuple[int, ...] = (),
) -> TrackedRequest:
    """A request of a service with such an objective; bounds None of TPOT bind nobody."""
    service = make_service(objective=LatencyObjective(ttft_s=ttft_s, tpot_s=tpot_s))
    tracked = make_tracked(service=service, target=target, prefix_blocks=prefix_blocks)
    tracked.ttft_bound_s, tracked.tpot_bound_s = ttft_s, tpot_s
    return tracked
