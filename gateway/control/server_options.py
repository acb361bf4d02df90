"""From the settings to what the parts of server/ are told; the same at start and at a reload."""

from gateway.scheduling.model import ServiceName
from gateway.server.options import (
    BackendTimeouts,
    ConnectionLimits,
    FrontEndOptions,
    MonitorOptions,
    PoolOptions,
)
from gateway.settings.policies import forwarding_policy
from gateway.settings.schema import PoolSettings, Settings


def backend_timeouts(settings: Settings) -> BackendTimeouts:
    """Bounds on attempts."""
    return BackendTimeouts(
        connect_s=settings.connect_timeout,
        first_byte_s=settings.first_byte_timeout,
        stall_s=settings.stall_timeout,
        slow_reader_s=settings.slow_reader_timeout,
    )


def monitor_options(settings: Settings) -> MonitorOptions:
    """How servers are watched."""
    return MonitorOptions(
        metrics_interval_s=settings.metrics_interval,
        health_interval_s=settings.health_interval,
        models_interval_s=settings.models_interval,
        timeout_s=settings.probe_timeout,
        failures_to_leave=settings.health_failures_to_leave,
    )


def front_end_options(settings: Settings) -> FrontEndOptions:
    """What clients may do."""
    return FrontEndOptions(
        max_body_bytes=settings.max_body_size,
        body_timeout_s=settings.body_timeout,
        idle_s=settings.client_idle_timeout,
        debug_headers=settings.debug_headers,
        cors_origins=frozenset(settings.cors_allow_origins),
    )


def connection_limits(settings: Settings, *, descriptors: int) -> ConnectionLimits:
    """What may come over clients' connections, where the system allows so many of them."""
    return ConnectionLimits(
        connections=min(settings.max_connections, descriptors),
        connections_per_client=settings.max_connections_per_client,
        header_timeout_s=settings.header_timeout,
        header_bytes=settings.max_header_size,
        header_count=settings.max_header_count,
        unread_s=settings.slow_reader_timeout,
    )


def pool_options(pool: PoolSettings, *, requires_keys: bool) -> PoolOptions:
    """How requests are put to the servers of an effective pool."""
    return PoolOptions(
        forwarding=forwarding_policy(pool, requires_keys=requires_keys),
        servers_use_priority=pool.servers_use_priority,
        trusts_priority=pool.trust_client_priority,
        inject_usage=frozenset(
            ServiceName(service.name) for service in pool.services if service.inject_usage
        ),
        continue_streams=frozenset(
            ServiceName(service.name)
            for service in pool.services
            if service.continue_broken_streams
        ),
        deadlines={
            ServiceName(service.name): service.deadline
            for service in pool.services
            if service.deadline is not None
        },
        fallbacks={
            ServiceName(service.name): ServiceName(service.fallback)
            for service in pool.services
            if service.fallback is not None
        },
    )
