"""What an administrator changed while the gateway runs: servers and services, apart from the file.

The changes lie over the configuration and what sources find, so that a reload keeps them. Those
that are to outlast a restart are also in a file of the gateway's own.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.control.configuration import ConfigurationInForce
from gateway.server.pool_servers import PoolServers, Wish
from gateway.settings.loading import read_file
from gateway.settings.problems import ConfigurationError, fault, problems_of
from gateway.settings.quantities import ServerUrl

_LOG = logging.getLogger(__name__)

ADMINISTRATOR = "administrator"
"""The source of servers and of changes of services that the admin API made."""


class ServerAction(StrEnum):
    """What can be done about a server; `resume` ends draining."""

    ADD = "add"
    DRAIN = "drain"
    RESUME = "resume"
    REMOVE = "remove"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerChange(_Frozen):
    """One server: whether it is here because of us, and what is wanted besides."""

    added: bool = False
    wish: Wish | None = None


class Changes(_Frozen):
    """All changes: servers by pool and URL, services by name."""

    servers: Mapping[str, Mapping[ServerUrl, ServerChange]] = Field(default_factory=dict)
    services: Mapping[str, Mapping[str, object]] = Field(default_factory=dict)

    def with_server(self, pool: str, url: str, change: ServerChange) -> "Changes":
        """A copy with one server's change; one that says nothing is left out."""
        servers = {**self.servers.get(pool, {}), url: change}
        kept = {each: found for each, found in servers.items() if found != ServerChange()}
        return Changes(servers={**self.servers, pool: kept}, services=self.services)

    def with_service(self, name: str, change: Mapping[str, object]) -> "Changes":
        """A copy with one service's change; an empty one is left out."""
        services = {**self.services, name: change}
        kept = {each: found for each, found in services.items() if found}
        return Changes(servers=self.servers, services=kept)


class OperatorChanges:
    """Carries changes out, and keeps those that are to outlast a restart in a file."""

    def __init__(
        self,
        pools: Sequence[PoolServers],
        configuration: ConfigurationInForce,
        *,
        file: Path | None,
    ) -> None:
        """Put in force what `file` has kept, if it is there.

        Raises:
            ConfigurationError: the file cannot be used.
        """
        self._pools = {servers.name: servers for servers in pools}
        self._configuration = configuration
        self._file = file
        self._kept = Changes()
        self._changes = Changes()
        if file is not None and file.exists():
            self._take_up(file)

    @property
    def services(self) -> Mapping[str, Mapping[str, object]]:
        """Changes of services, by name."""
        return self._changes.services

    @property
    def changed_services(self) -> set[str]:
        """Names of which something is changed or kept, also those of services that are gone."""
        return {*self._changes.services, *self._kept.services}

    def server(self, pool: str, url: str, action: ServerAction, *, persist: bool) -> None:
        """Add, drain, resume or remove a server of a pool.

        Raises:
            ConfigurationError: it cannot be kept.
        """
        named_elsewhere = any(
            status.url == url and set(status.sources) - {ADMINISTRATOR}
            for status in self._pools[pool].statuses()
        )

        def change(changes: Changes) -> Changes:
            before = changes.servers.get(pool, {}).get(url, ServerChange())
            after = _after(before, action, named_elsewhere=named_elsewhere)
            return changes.with_server(pool, url, after)

        _LOG.info("administrator: %s server %s, pool %s", action, url, pool)
        self._apply(change(self._changes), change(self._kept) if persist else None)

    def service(self, name: str, change: Mapping[str, object] | None, *, persist: bool) -> None:
        """Change keys of a service, besides those changed before; None takes all changes back.

        Raises:
            ConfigurationError: the result is not valid, or cannot be kept; nothing has changed.
        """

        def merged(changes: Changes) -> Changes:
            before = changes.services.get(name, {})
            return changes.with_service(name, {} if change is None else {**before, **change})

        self._apply(merged(self._changes), merged(self._kept) if persist else None)

    def _apply(self, changes: Changes, kept: Changes | None) -> None:
        before = self._changes
        self._carry_out(changes)
        if kept is not None:
            try:
                self._keep(kept)
            except ConfigurationError:
                self._carry_out(before)
                raise

    def _take_up(self, file: Path) -> None:
        """Put in force what was kept."""
        self._kept = _read(file)
        pools = self._configuration.settings.effective_pools()
        services = {service.name for pool in pools for service in pool.services}
        for name in self._kept.services.keys() - services:
            _LOG.warning(
                "%s: no service is named %r: what was changed of it is idle;"
                " DELETE /admin/services/%s/changes?persist=true removes it",
                file,
                name,
                quote(name, safe=""),
            )
        for name in self._kept.servers.keys() - self._pools.keys():
            _LOG.warning("%s: no pool is named %r: its changes are idle", file, name)
        try:
            self._carry_out(self._kept)
        except ConfigurationError as error:
            problems = [replace(problem, source=str(file)) for problem in error.problems]
            raise ConfigurationError(problems) from error

    def _carry_out(self, changes: Changes) -> None:
        self._configuration.change_services(ADMINISTRATOR, changes.services)
        for name, servers in self._pools.items():
            changed = changes.servers.get(name, {})
            added = [url for url, change in changed.items() if change.added]
            wishes = {url: change.wish for url, change in changed.items() if change.wish}
            servers.override(wishes)
            servers.declare(ADMINISTRATOR, dict.fromkeys(added, False))
        self._changes = changes

    def _keep(self, kept: Changes) -> None:
        if self._file is None:
            text = "is not set; expected a file that changes can be kept in"
            raise fault("", "admin_changes_file", text)
        written = yaml.safe_dump(kept.model_dump(mode="json"), sort_keys=False)
        passing = self._file.with_name(self._file.name + ".new")
        try:
            passing.write_text(written, encoding="utf-8")
            passing.replace(self._file)
        except OSError as error:
            raise fault(str(self._file), "", f"cannot be written: {error.strerror}") from error
        self._kept = kept


def _after(before: ServerChange, action: ServerAction, *, named_elsewhere: bool) -> ServerChange:
    match action:
        case ServerAction.ADD:
            return ServerChange(added=True)
        case ServerAction.DRAIN:
            return ServerChange(added=before.added, wish=Wish.DRAIN)
        case ServerAction.RESUME:
            return ServerChange(added=before.added)
        case ServerAction.REMOVE:
            return ServerChange(wish=Wish.REMOVE if named_elsewhere else None)


def _read(path: Path) -> Changes:
    values = read_file(path)
    try:
        return Changes.model_validate(values)
    except ValidationError as error:
        sources = dict.fromkeys(values, str(path))
        raise ConfigurationError(problems_of(error, sources, section=Changes)) from error
