"""The pools of the gateway as a part that follows the configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gateway.control.server_options import backend_timeouts, monitor_options, pool_options
from gateway.scheduling.events import PoliciesChanged
from gateway.scheduling.policy import SchedulingPolicy
from gateway.server.backend_monitor import BackendMonitor
from gateway.server.pool_servers import PoolServers
from gateway.server.routes import PoolDirectory, ServingPool
from gateway.settings.policies import scheduling_policies
from gateway.settings.schema import PoolSettings, Settings
from gateway.settings.tls import server_side_context

CONFIGURED = "configuration"
"""The source of the servers that the configuration lists."""


@dataclass(slots=True, kw_only=True)
class ServedPool:
    """One pool with what changes it; `policy` is the one its scheduler has."""

    serving: ServingPool
    servers: PoolServers
    monitor: BackendMonitor
    policy: SchedulingPolicy


class ServedPools:
    """All pools; `follow` is the part."""

    def __init__(self, pools: Sequence[ServedPool], *, directory: PoolDirectory) -> None:
        """Take the pools in the order of the configuration, and the directory that routes."""
        self.pools = tuple(pools)
        self._directory = directory

    def follow(self, settings: Settings) -> Callable[[], None]:
        """Change services, objectives, limits, time bounds, and the servers that are listed."""
        policies = scheduling_policies(settings)
        effective = settings.effective_pools()
        changed = [
            replace(
                pool.serving,
                pool=policies[pool.serving.pool.name].pool,
                options=pool_options(wanted, requires_keys=settings.requires_keys),
            )
            for pool, wanted in zip(self.pools, effective, strict=True)
        ]

        def carry_out() -> None:
            for pool, serving, wanted in zip(self.pools, changed, effective, strict=True):
                pool.serving = serving
                pool.monitor.reconfigure(monitor_options(settings))
                pool.servers.reconfigure(backend_timeouts(settings))
                authorization = serving.options.forwarding.authorization
                pool.servers.set_security(partial(server_side_context, wanted), authorization)
                policy = policies[serving.pool.name]
                if policy != pool.policy:
                    pool.policy = policy
                    serving.driver.deliver(PoliciesChanged(policy))
                declare_configured(pool.servers, wanted)
            self._directory.replace(changed)

        return carry_out


def declare_configured(servers: PoolServers, pool: PoolSettings) -> None:
    """Let a pool have the servers that its configuration lists."""
    servers.declare(CONFIGURED, dict.fromkeys(pool.servers, False))
