"""What is read of Kubernetes objects, and the servers that follow from it.

Sources: the API reference of Kubernetes for Pod (core/v1) and EndpointSlice (discovery.k8s.io/v1),
of the Gateway API inference extension for InferencePool (v1) and InferenceObjective (v1alpha2).
"""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.discovery.kubernetes_watch import ObjectMeta


class _Condition(msgspec.Struct):
    type: str
    status: str


class _PodStatus(msgspec.Struct):
    phase: str = ""
    address: str = msgspec.field(default="", name="podIP")
    conditions: list[_Condition] = []


class Pod(msgspec.Struct):
    """A pod: where it is, and whether it is ready."""

    metadata: ObjectMeta
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def is_ready(self) -> bool:
        """Whether it is to get new requests."""
        return self.metadata.deletion_timestamp is None and any(
            each.type == "Ready" and each.status == "True" for each in self.status.conditions
        )


class _EndpointConditions(msgspec.Struct):
    ready: bool | None = None


class _Endpoint(msgspec.Struct):
    addresses: list[str]
    conditions: _EndpointConditions = msgspec.field(default_factory=_EndpointConditions)


class _SlicePort(msgspec.Struct):
    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct):
    """Some of the endpoints of a Service."""

    metadata: ObjectMeta
    endpoints: list[_Endpoint] | None = None
    ports: list[_SlicePort] | None = None


class _LabelSelector(msgspec.Struct):
    match_labels: dict[str, str] = msgspec.field(default={}, name="matchLabels")


class _TargetPort(msgspec.Struct):
    number: int


class _InferencePoolSpec(msgspec.Struct):
    selector: _LabelSelector
    target_ports: list[_TargetPort] = msgspec.field(name="targetPorts")


class InferencePool(msgspec.Struct):
    """Which pods belong to a pool, and at which ports; each port of a pod is a server."""

    metadata: ObjectMeta
    spec: _InferencePoolSpec

    @property
    def label_selector(self) -> str:
        """The selector as the API takes it in a query."""
        return ",".join(f"{k}={v}" for k, v in sorted(self.spec.selector.match_labels.items()))

    @property
    def ports(self) -> tuple[int, ...]:
        """The numbers of the target ports."""
        return tuple(each.number for each in self.spec.target_ports)


class _PoolRef(msgspec.Struct):
    name: str


class _InferenceObjectiveSpec(msgspec.Struct):
    pool: _PoolRef = msgspec.field(name="poolRef")
    priority: int = 0


class InferenceObjective(msgspec.Struct):
    """How important requests of one kind are."""

    metadata: ObjectMeta
    spec: _InferenceObjectiveSpec


def servers_of_pods(pods: Iterable[Pod], ports: Iterable[int], *, scheme: str) -> dict[str, bool]:
    """A server per running pod and port; pods that are not ready, or are to end, drain."""
    chosen = tuple(ports)
    return {
        server_url(scheme, pod.status.address, port): not pod.is_ready
        for pod in pods
        if pod.status.phase == "Running" and pod.status.address
        for port in chosen
    }


def servers_of_slices(
    slices: Iterable[EndpointSlice], *, port: int | str | None, scheme: str
) -> dict[str, bool]:
    """A server per endpoint; those that are not ready drain.

    An endpoint may for a while be in two slices, and then counts as ready if either says so.

    Raises:
        ValueError: a slice has no such port.
    """
    servers: dict[str, bool] = {}
    for each in slices:
        endpoints = each.endpoints or ()
        number = _port_of(each, port) if endpoints else 0
        for endpoint in endpoints:
            drains = endpoint.conditions.ready is False
            for address in endpoint.addresses:
                url = server_url(scheme, address, number)
                servers[url] = drains and servers.get(url, True)
    return servers


def priorities_of(objectives: Mapping[str, InferenceObjective], pool: str) -> dict[str, int]:
    """Priorities by the objective's name, of those that refer to a pool."""
    return {
        name: each.spec.priority
        for name, each in sorted(objectives.items())
        if each.spec.pool.name == pool
    }


def server_url(scheme: str, host: str, port: int) -> str:
    """The base URL of a server."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _port_of(found: EndpointSlice, wanted: int | str | None) -> int:
    ports = [each for each in found.ports or () if each.port is not None]
    if isinstance(wanted, int):
        return wanted
    named = [each.port for each in ports if wanted is None or each.name == wanted]
    if len(named) == 1 and named[0] is not None:
        return named[0]
    names = ", ".join(f"{each.name or 'unnamed'} ({each.port})" for each in ports) or "none"
    wish = "exactly one port, or `port` in the configuration" if wanted is None else repr(wanted)
    raise ValueError(f"EndpointSlice {found.metadata.name} has ports {names}; expected {wish}")
