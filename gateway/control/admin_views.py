"""What the admin API shows of servers and services."""

from collections.abc import Mapping, Sequence

from gateway.scheduling.snapshot import SchedulerSnapshot, ServiceSnapshot
from gateway.server.pool_servers import ServerStatus
from gateway.settings.schema import PoolSettings, ServiceSettings

_ADHERENCE = ("target", "attainment", "ended", "missed", "in_flight", "expected_misses", "burn")


def server_view(pool: str, status: ServerStatus) -> dict[str, object]:
    """One server of a pool."""
    return {"pool": pool, **status._asdict()}


def service_views(
    pools: Sequence[PoolSettings],
    snapshots: Mapping[str, SchedulerSnapshot],
    changes: Mapping[str, Mapping[str, object]],
) -> list[dict[str, object]]:
    """Every service as configured and changed, and how it fares.

    Args:
        pools: effective ones, in force.
        snapshots: of the schedulers, by pool.
        changes: what the administrator changed, by service.
    """
    views = []
    for pool in pools:
        fares = {each.service: each for each in snapshots[pool.name].services}
        for service in pool.services:
            view = _service_view(service, fares.get(service.name))
            views.append(
                {"pool": pool.name, **view, "changed": sorted(changes.get(service.name, {}))}
            )
    return views


def _service_view(service: ServiceSettings, fares: ServiceSnapshot | None) -> dict[str, object]:
    values = service.model_dump(mode="json", exclude_none=True)
    adherence = {key: getattr(fares, key) for key in _ADHERENCE} if fares else None
    return {**values, "adherence": adherence}
