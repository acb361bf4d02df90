"""One line of the log for each server that is ejected or taken back."""

import logging

from gateway.scheduling.breaker import Circuit
from gateway.scheduling.breakers import HealthChange

_LOG = logging.getLogger(__name__)


def log_health_change(change: HealthChange) -> None:
    """Tell what happened to a server's circuit, or that so many failed that all are used."""
    match change.state:
        case Circuit.OPEN:
            _LOG.warning("server %s is ejected: %s", change.backend_id, change.reason)
        case Circuit.HALF_OPEN:
            _LOG.debug("server %s is to be probed by the next request", change.backend_id)
        case Circuit.CLOSED:
            _LOG.info("server %s answers again, and is used as before", change.backend_id)
        case "panic":
            _LOG.error("%s, more than allowed: all are used", change.reason)
        case _:
            _LOG.info("%s, which is allowed again: they are left out", change.reason)
