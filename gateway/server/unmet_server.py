"""How a server is shown that the pool has and its scheduler has not met.

It has never answered, or it has been draining since the gateway knows of it.
"""

from gateway.scheduling.breaker import Circuit
from gateway.scheduling.model import BackendId
from gateway.scheduling.snapshot import BackendSnapshot, ForecastQuality
from gateway.server.contact import Contact


def unmet_server(backend_id: BackendId, contact: Contact | None) -> BackendSnapshot:
    """A server with nothing counted, reported or learned; `contact` is None where nobody looks."""
    return BackendSnapshot(
        backend_id=backend_id,
        usable=contact is not None and contact.healthy,
        draining=contact is not None and contact.draining,
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
        silence=None if contact is None else contact.silence(),
    )
