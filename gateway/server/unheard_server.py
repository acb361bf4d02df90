"""How a server is shown that the pool has and its scheduler has not met: it has never answered."""

from gateway.scheduling.breaker import Circuit
from gateway.scheduling.model import BackendId
from gateway.scheduling.snapshot import BackendSnapshot, ForecastQuality


def unheard_server(backend_id: BackendId) -> BackendSnapshot:
    """A server that takes nothing, with nothing counted, reported or learned."""
    return BackendSnapshot(
        backend_id=backend_id,
        usable=False,
        draining=False,
        full=False,
        saturation=0.0,
        circuit=Circuit.CLOSED,
        ejected=False,
        ejections=0,
        failure_rate=0.0,
        failures={},
        requests=0,
        sequences=0,
        decoding=0,
        context_tokens=0,
        pending_prefill_tokens=0,
        kv_reserved_tokens=0,
        external_running=0.0,
        active_adapters={},
        resident_adapters=(),
        max_loras=0,
        reported_running=None,
        reported_waiting=None,
        reported_kv_usage=None,
        report_age_s=None,
        ttft_forecasts=ForecastQuality(),
        tpot_forecasts=ForecastQuality(),
        forecast_trust=0.0,
        step_costs=None,
    )
