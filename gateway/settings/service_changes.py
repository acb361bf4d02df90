"""Changes of services that do not come from the file: each as valid as if it stood there."""

from collections.abc import Mapping

from pydantic import ValidationError

from gateway.settings.checks import faults
from gateway.settings.problems import ConfigurationError, Problem, problems_of
from gateway.settings.schema import PoolSettings, ServiceSettings, Settings

ServiceChange = Mapping[str, object]
"""Keys of a service with new values, as a file would have them; None is the key's default."""

CHANGEABLE = frozenset({"priority", "fairness_weight", "objective", "targets", "max_queue_wait"})
"""Keys of a service that can be changed at run time; its name and model are what it is."""


def with_service_changes(
    settings: Settings, changes: Mapping[str, ServiceChange], *, source: str
) -> Settings:
    """The settings with some services changed; changes of services that are not there are left out.

    Args:
        settings: valid ones.
        changes: by the service's name.
        source: who wants them, for messages.

    Raises:
        ConfigurationError: the result would not be valid.
    """
    if not any(service.name in changes for pool in settings.pools for service in pool.services):
        return settings
    pools = tuple(
        _changed_pool(pool, f"pools[{index}]", changes, source=source)
        for index, pool in enumerate(settings.pools)
    )
    changed = settings.model_copy(update={"pools": pools})
    problems = faults(changed)
    if problems:
        raise ConfigurationError([Problem(source, each.key, each.text) for each in problems])
    return changed


def _changed_pool(
    pool: PoolSettings, key: str, changes: Mapping[str, ServiceChange], *, source: str
) -> PoolSettings:
    services = tuple(
        _changed_service(
            service, f"{key}.services[{index}]", changes.get(service.name, {}), source=source
        )
        for index, service in enumerate(pool.services)
    )
    return pool.model_copy(update={"services": services})


def _changed_service(
    service: ServiceSettings, key: str, change: ServiceChange, *, source: str
) -> ServiceSettings:
    if not change:
        return service
    unknown = [
        Problem(source, f"{key}.{name}", f"expected one of {', '.join(sorted(CHANGEABLE))}")
        for name in change
        if name not in CHANGEABLE
    ]
    if unknown:
        raise ConfigurationError(unknown)
    values = service.model_dump(exclude_unset=True) | dict(change)
    try:
        return ServiceSettings.model_validate(
            {name: value for name, value in values.items() if value is not None}
        )
    except ValidationError as error:
        found = problems_of(error, {}, section=ServiceSettings)
        problems = [Problem(source, f"{key}.{each.key}", each.text) for each in found]
        raise ConfigurationError(problems) from error
