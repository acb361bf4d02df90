"""The services of a pool by name, and the draw of a target model from a traffic split."""

from random import Random
from typing import Final

from gateway.scheduling.model import (
    NON_CRITICAL,
    LLMServerPool,
    LLMService,
    ServiceName,
)

DEFAULT_SERVICE: Final = ServiceName("default")
"""Name under which requests for models without a service are accepted."""


class ServiceDirectory:
    """Looks services up and draws targets."""

    def __init__(self, *, pool: LLMServerPool, rng: Random) -> None:
        """Index the services of `pool`; draws come from `rng`."""
        self._rng = rng
        self.reconfigure(pool)

    def reconfigure(self, pool: LLMServerPool) -> None:
        """Replace the services."""
        self._pool = pool
        self._services = {service.name: service for service in pool.services}
        self._default = LLMService(name=DEFAULT_SERVICE, model="", priority=NON_CRITICAL)

    @property
    def services(self) -> tuple[LLMService, ...]:
        """All that `find` finds: the configured ones, then the default one if it is accepted."""
        default = (self._default,) if self._pool.accept_unregistered_models else ()
        return (*self._services.values(), *default)

    def find(self, name: ServiceName) -> LLMService | None:
        """The service, the default one where unregistered models are accepted, or None."""
        found = self._services.get(name)
        if found is None and name == DEFAULT_SERVICE and self._pool.accept_unregistered_models:
            return self._default
        return found

    def draw_target(self, service: LLMService, model: str) -> str | None:
        """The model to send: the client's own without a split; None when all weights are 0."""
        targets = service.targets
        if not targets:
            return model
        if len(targets) == 1:
            return targets[0].name if targets[0].weight > 0 else None
        total = sum(target.weight for target in targets)
        if total <= 0:
            return None
        drawn = self._rng.random() * total
        last = None
        for target in targets:
            if target.weight <= 0:
                continue
            last = target.name
            drawn -= target.weight
            if drawn < 0:
                break
        return last
