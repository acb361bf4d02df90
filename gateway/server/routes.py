"""From the model name a client sent to the pool and service that answer it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.runtime.scheduler_driver import SchedulerDriver
from gateway.scheduling.model import (
    NON_CRITICAL,
    BackendId,
    LLMServerPool,
    LLMService,
    ServedModel,
    ServiceName,
)
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.scheduling.snapshot import SchedulerSnapshot, Silence
from gateway.server.backend_directory import BackendDirectory
from gateway.server.options import PoolOptions
from gateway.server.unmet_server import unmet_server


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPool:
    """One pool with everything that serves it."""

    pool: LLMServerPool
    driver: SchedulerDriver
    backends: BackendDirectory
    options: PoolOptions

    def snapshot(self) -> SchedulerSnapshot:
        """The scheduler's state now, and behind its servers those that it has not met.

        They have never answered, or drain since they are here. Of servers that are out it is told
        since when and why.
        """
        state = self.driver.snapshot()
        met = {server.backend_id for server in state.backends}
        servers = [
            server if server.usable else replace(server, silence=self._silence(server.backend_id))
            for server in state.backends
        ]
        servers += [
            unmet_server(each, self.backends.contact(each))
            for each in self.backends
            if each not in met
        ]
        return replace(state, backends=tuple(servers))

    def _silence(self, backend_id: BackendId) -> Silence | None:
        contact = self.backends.contact(backend_id)
        return None if contact is None else contact.silence()


class Route(NamedTuple):
    """Where a request goes; `instead_of` is the service that this one answers for."""

    pool: ServingPool
    service: LLMService
    instead_of: ServiceName | None = None

    @property
    def asked_for(self) -> ServiceName:
        """The service that the client asked for, and that its key has to be for."""
        return self.instead_of or self.service.name

    @property
    def is_served(self) -> bool:
        """Whether a healthy server of the pool has one of the service's models."""
        service, backends = self.service, self.pool.backends
        if not service.targets:
            return backends.served(service.model) is not None
        return any(backends.served(t.name) is not None for t in service.targets if t.weight)


class PoolDirectory:
    """All pools of the gateway. Pools are asked in the order given."""

    def __init__(self, pools: Sequence[ServingPool]) -> None:
        self.replace(pools)

    def replace(self, pools: Sequence[ServingPool]) -> None:
        """Route by these from now on; requests that have their route keep it."""
        self._pools = tuple(pools)
        self._by_model = {
            service.model: Route(pool, service)
            for pool in reversed(self._pools)
            for service in pool.pool.services
        }
        by_name = {route.service.name: route for route in self._by_model.values()}
        self._fallbacks = {
            name: by_name[fallback]
            for pool in self._pools
            for name, fallback in pool.options.fallbacks.items()
            if fallback in by_name
        }
        self._unregistered = tuple(
            Route(pool, LLMService(name=DEFAULT_SERVICE, model="", priority=NON_CRITICAL))
            for pool in self._pools
            if pool.pool.accept_unregistered_models
        )

    @property
    def pools(self) -> tuple[ServingPool, ...]:
        """All pools."""
        return self._pools

    @property
    def any_usable(self) -> bool:
        """Whether at least one server of one pool is healthy."""
        return any(pool.backends.any_usable for pool in self._pools)

    def route(self, model: str) -> Route | None:
        """Find who answers a model name; None if nobody does.

        While a pool that takes unregistered models has no healthy server, nobody can tell what it
        serves; its scheduler then lets the request wait for a server.
        """
        configured = self._by_model.get(model)
        if configured is not None:
            fallback = self._fallbacks.get(configured.service.name)
            if fallback is not None and not configured.is_served and fallback.is_served:
                return fallback._replace(instead_of=configured.service.name)
            return configured
        for route in self._unregistered:
            if route.pool.backends.served(model) is not None:
                return route
        for route in self._unregistered:
            if not route.pool.backends.any_usable:
                return route
        return None

    def models(self) -> dict[str, ServedModel]:
        """Return what clients may ask for: services, and the models of healthy servers."""
        found = {model: ServedModel(model) for model in self._by_model}
        for pool in self._pools:
            for served in pool.backends.served_models():
                if pool.pool.accept_unregistered_models or served.name in found:
                    found[served.name] = served
        return found
