"""Every key there is, with its type, bounds, default and description.

The description is the help text of the flag. Top-level keys are also flags (`--queue-timeout`)
and variables (`GATEWAY_QUEUE_TIMEOUT`); those of pool_defaults.py may be set again inside a pool.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic_settings import NoDecode

from gateway.scheduling.model import CRITICAL, NON_CRITICAL
from gateway.settings.access import AccessSettings
from gateway.settings.discovery import DiscoverySettings
from gateway.settings.pool_defaults import PoolDefaults
from gateway.settings.quantities import (
    Duration,
    FilePath,
    Origin,
    Percentile,
    PositiveDuration,
    Priority,
    ServerUrl,
    split_list,
)

PREFIX = "GATEWAY_"

Name = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=0, le=65535)]


def variable(key: str) -> str:
    """The environment variable of a top-level key."""
    return PREFIX + key.upper()


def flag(key: str) -> str:
    """The command-line flag of a top-level key."""
    return "--" + key.replace("_", "-")


class _Group(BaseModel):
    """The text below a key is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TargetSettings(_Group):
    """One model of a service's traffic split."""

    name: Name
    """a model or an adapter that the servers have"""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """its share of the requests, next to the other targets' weights"""


class ObjectiveSettings(_Group):
    """A latency objective; a bound's own percentile defaults to `percentile`."""

    ttft: PositiveDuration | None = None
    """bound of the time to first token"""
    tpot: PositiveDuration | None = None
    """bound of the time per output token after the first"""
    ntpot: PositiveDuration | None = None
    """bound of the end-to-end latency per output token"""
    percentile: Percentile = 0.95
    """share of requests that must be within a bound: p95, 0.95 or 95%"""
    ttft_percentile: Percentile | None = None
    """the same for ttft alone"""
    tpot_percentile: Percentile | None = None
    """the same for tpot alone"""
    ntpot_percentile: Percentile | None = None
    """the same for ntpot alone"""


class ServiceSettings(_Group):
    """A workload on a pool; without `model` clients send the service's name."""

    name: Name
    """how logs, metrics and the status page call it"""
    model: Name = Field(default_factory=lambda known: known.get("name", ""))
    """model name that clients send; default: the name"""
    targets: tuple[TargetSettings, ...] = ()
    """models that answer; default: the one that clients name"""
    objective: ObjectiveSettings | None = None
    """what it promises about latency"""
    priority: Priority = Field(
        default_factory=lambda known: CRITICAL if known.get("objective") else NON_CRITICAL
    )
    """Critical, Non-Critical, or a level (higher first, below 0 is Non-Critical); default: Critical
    with an objective, else Non-Critical"""
    fairness_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """use of its error budget counts so many times: 2 gets about half the misses of 1"""
    max_queue_wait: Duration | None = None
    """longest wait in the queue; default: queue_timeout"""
    max_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """share of tokens that it may have while others wait"""
    deadline: PositiveDuration | None = None
    """longest time from the arrival of a request to the last byte of its answer; default: none"""
    fallback: Name | None = None
    """service of another pool that answers while no server here has its models"""
    inject_usage: bool = False
    """ask servers for token counts in streams, unseen by clients"""
    continue_broken_streams: bool = False
    """finish streams that break after their first byte on another server; needs servers that know
    `return_token_ids` (vLLM 0.10.2 or later)"""


class DefaultObjectiveSettings(_Group):
    """What servers are held to for services without an objective, or without this bound in it."""

    ttft: PositiveDuration = 10.0
    """bound of the time to first token"""
    tpot: PositiveDuration = 0.2
    """bound of the time per output token after the first"""


class PoolSettings(PoolDefaults):
    """Servers with one base model and one set of adapters, and the services on them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name
    """how logs, metrics and the status page call it"""
    servers: tuple[ServerUrl, ...] = ()
    """base URLs; default: those of `backends`"""
    discovery: DiscoverySettings = DiscoverySettings()
    """where further servers are looked for"""
    services: tuple[ServiceSettings, ...] = ()
    """workloads with a name, an objective or targets of their own"""
    default_objective: DefaultObjectiveSettings = DefaultObjectiveSettings()
    """what servers are held to for requests without an objective; nobody is judged by it"""
    accept_unregistered_models: bool = Field(
        default_factory=lambda known: not known.get("services")
    )
    """take models that belong to no service, as Non-Critical; default: only without services"""

    @property
    def discovers(self) -> bool:
        """Whether servers are looked for."""
        return any(source is not None for _, source in self.discovery)


class Settings(AccessSettings, PoolDefaults):
    """The whole configuration; `loading.load_settings` makes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _file: Path | None = PrivateAttr(default=None)

    host: Name = Field("0.0.0.0", description="address of the clients' listener")  # noqa: S104 - clients come from other machines
    port: Port = Field(8080, description="port of the clients' listener")
    admin_host: Name = Field(
        "127.0.0.1", description="address of the listener for /metrics and /debug"
    )
    admin_port: Port = Field(8081, description="port of the listener for /metrics and /debug")
    cors_allow_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(split_list)] = (
        Field((), description="origins browsers may call from, comma-separated; * for any")
    )
    debug_headers: bool = Field(
        default=False, description="tell clients server, queue time and forecast in headers"
    )
    backends: Annotated[tuple[ServerUrl, ...], NoDecode, BeforeValidator(split_list)] = Field(
        (), description="servers of the one pool, comma-separated URLs"
    )
    connect_timeout: PositiveDuration = Field(3.0, description="for a connection to a server")
    first_byte_timeout: PositiveDuration = Field(
        600.0, description="from request sent to first byte of the answer"
    )
    stall_timeout: PositiveDuration = Field(120.0, description="longest silence inside one answer")
    slow_reader_timeout: PositiveDuration = Field(
        300.0, description="longest a client may take no bytes of its answer"
    )
    metrics_interval: PositiveDuration = Field(
        0.1,
        description="between polls of /metrics; in large pools 2 ms a server, 800 ms at most",
    )
    health_interval: PositiveDuration = Field(1.0, description="between polls of /health")
    models_interval: PositiveDuration = Field(5.0, description="between polls of /v1/models")
    probe_timeout: PositiveDuration = Field(2.0, description="for the answer to one poll")
    health_failures_to_leave: Annotated[int, Field(ge=1)] = Field(
        3,
        description="failed polls of /health in a row that take a server out;"
        " silence for as long as they may take does too",
    )
    reload_on_change: bool = Field(
        default=False,
        description="reload when the file changes, as on SIGHUP",
    )
    admin_changes_file: FilePath | None = Field(
        None, description="file that the admin API keeps changes in that are to outlast a restart"
    )
    drain_timeout: Duration = Field(30.0, description="grace for requests in flight after SIGTERM")
    request_log: FilePath | None = Field(
        Path("-"), description="file that gets a JSON line per request; - is standard output"
    )
    journal: FilePath | None = Field(None, description="file that every event and decision goes to")
    seed: int | None = Field(None, description="of the random draws; drawn anew unless set")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe messages shown"
    )
    log_format: Literal["text", "json"] = Field("text", description="shape of a log line")
    pools: tuple[PoolSettings, ...] = Field(
        (), description="servers with a base model each, and the services on them (file only)"
    )

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each top-level key that is not a default came from."""
        return self._origins

    @property
    def file(self) -> Path | None:
        """The file that was read, if any."""
        return self._file

    def with_origins(self, origins: Mapping[str, str], *, file: Path | None = None) -> Self:
        """A copy that remembers where its values came from, and the file that was read."""
        copy = self.model_copy()
        copy._origins = dict(origins)  # noqa: SLF001 - the copy is one of us
        copy._file = file  # noqa: SLF001 - likewise
        return copy

    def effective_pools(self) -> tuple[PoolSettings, ...]:
        """The pools with `backends` assigned and every default filled in."""
        pools = self.pools or (PoolSettings(name="default"),)
        return tuple(self._with_defaults(pool) for pool in pools)

    def _with_defaults(self, pool: PoolSettings) -> PoolSettings:
        update: dict[str, Any] = {
            key: getattr(self, key)
            for key in PoolDefaults.model_fields
            if key not in pool.model_fields_set
        }
        if not pool.servers:
            update["servers"] = self.backends
        return pool.model_copy(update=update)
