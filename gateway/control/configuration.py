"""The configuration in force, and how it is replaced as a whole while the gateway runs."""

import logging
from collections.abc import Callable, Mapping
from difflib import unified_diff

from gateway.settings.problems import ConfigurationError, Problem
from gateway.settings.rendering import effective_configuration
from gateway.settings.schema import Settings
from gateway.settings.service_changes import ServiceChange, with_service_changes

_LOG = logging.getLogger(__name__)

Part = Callable[[Settings], Callable[[], None]]
"""A part of the gateway that follows the configuration.

It is called with new settings. It changes nothing yet, raises ConfigurationError if it cannot
follow them (a file they name cannot be read, say), and returns what carries the change out. That
must not raise: by then every part has agreed.
"""

AT_START_ONLY = frozenset(
    {
        "host",
        "port",
        "admin_host",
        "admin_port",
        "admin_changes_file",
        "client_idle_timeout",
        "max_connections",
        "max_connections_per_client",
        "header_timeout",
        "max_header_size",
        "max_header_count",
        "admin_tls",
        "request_log",
        "journal",
        "seed",
    }
)
"""Keys that a running gateway cannot follow."""


class ConfigurationInForce:
    """Holds the settings, and replaces them in all parts at once or in none.

    What is in force is what was loaded, with the changes that others (an administrator, objects of
    Kubernetes) made to services on top.

    Attributes:
        settings: in force now.
        reloads, failed_reloads: how often it was replaced, and how often that was refused.
    """

    def __init__(self, settings: Settings, *, load: Callable[[], Settings]) -> None:
        """Start with `settings`; `load` reads them again, or raises ConfigurationError."""
        self.settings = settings
        self.reloads = 0
        self.failed_reloads = 0
        self._loaded = settings
        self._load = load
        self._changes: dict[str, Mapping[str, ServiceChange]] = {}
        self._parts: list[Part] = []

    def add(self, *parts: Part) -> None:
        """Let these follow from now on, in this order after the others."""
        self._parts += parts

    def reload(self) -> None:
        """Load and put in force.

        Raises:
            ConfigurationError: the configuration in force stays. The log has it too.
        """
        try:
            loaded = self._load()
            self._replace(loaded, self._changes, why="reloaded")
        except ConfigurationError as error:
            self.failed_reloads += 1
            _LOG.error("configuration not reloaded, the one in force stays:\n%s", error)
            raise
        self.reloads += 1

    def change_services(self, source: str, changes: Mapping[str, ServiceChange]) -> None:
        """Put what `source` wants of services, by name, on top, in place of what it wanted before.

        Raises:
            ConfigurationError: the result is not valid; nothing has changed.
        """
        if self._changes.get(source, {}) != changes:
            everything = {**self._changes, source: dict(changes)}
            self._replace(self._loaded, everything, why=f"changed by {source}")

    def _replace(
        self, loaded: Settings, changes: dict[str, Mapping[str, ServiceChange]], *, why: str
    ) -> None:
        followed = _as_far_as_possible(self._loaded, loaded)
        settings = followed
        for source, changed in changes.items():
            settings = with_service_changes(settings, changed, source=source)
        carry_out = [part(settings) for part in self._parts]
        for action in carry_out:
            action()
        difference = _difference(self.settings, settings)
        self.settings, self._loaded, self._changes = settings, followed, changes
        _LOG.info("configuration %s%s", why, f":\n{difference}" if difference else ": no change")


def _as_far_as_possible(old: Settings, new: Settings) -> Settings:
    """The new settings, with the keys that cannot be followed as they were; the log tells them."""
    names = [pool.name for pool in new.effective_pools()]
    before = [pool.name for pool in old.effective_pools()]
    if names != before:
        text = (
            f"{', '.join(names)}: expected {', '.join(before)}; pools are added, removed and"
            " renamed by a restart only"
        )
        raise ConfigurationError([Problem(new.origins.get("pools", ""), "pools", text)])
    kept = {}
    shown_old, shown_new = (each.model_dump(mode="json") for each in (old, new))
    for key in sorted(AT_START_ONLY):
        if shown_old[key] != shown_new[key]:
            kept[key] = getattr(old, key)
            _LOG.warning(
                "%s: %r is followed after a restart only; until then: %r",
                key,
                shown_new[key],
                shown_old[key],
            )
    return new.model_copy(update=kept)


def _difference(old: Settings, new: Settings) -> str:
    """Lines of the effective configuration that went (-) and came (+); secrets are masked."""
    before, after = (effective_configuration(each).splitlines() for each in (old, new))
    lines = list(unified_diff(before, after, n=0, lineterm=""))[2:]
    return "\n".join(line for line in lines if not line.startswith("@@"))
