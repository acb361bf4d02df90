"""Servers that are pods: behind a Service, by labels, or of an InferencePool."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from gateway.discovery.kubernetes_objects import (
    EndpointSlice,
    InferenceObjective,
    InferencePool,
    Pod,
    priorities_of,
    servers_of_pods,
    servers_of_slices,
)
from gateway.discovery.kubernetes_watch import KubernetesObject, ObjectWatch, Pace, Resource
from gateway.discovery.report import SourceReport
from gateway.settings.discovery import KubernetesDiscovery

_T = TypeVar("_T", bound=KubernetesObject)
_POOLS = "inference.networking.k8s.io/v1"
_OBJECTIVES = "inference.networking.x-k8s.io/v1alpha2"

Prioritize = Callable[[Mapping[str, int]], None]
"""Takes the priorities of services by name, the whole set each time."""


class KubernetesSource:
    """Watches what the configuration names; run it in a TaskGroup.

    A server of a pod that is not ready or is to end drains; it is removed when the pod, or its
    endpoint, is gone.
    """

    def __init__(
        self,
        wanted: KubernetesDiscovery,
        report: SourceReport,
        *,
        prioritize: Prioritize,
        pace: Pace,
    ) -> None:
        """`prioritize` gets what InferenceObjectives of the pool say."""
        self._wanted = wanted
        self._report = report
        self._prioritize = prioritize
        self._pace = pace
        self._pool: tuple[str, tuple[int, ...]] | None = None
        self._pods: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        wanted = self._wanted
        if wanted.service is not None:
            query = {"labelSelector": f"kubernetes.io/service-name={wanted.service}"}
            path = self._path("discovery.k8s.io/v1", "endpointslices")
            await self._watch(Resource("EndpointSlices", path, query), EndpointSlice, self._slices)
        elif wanted.pods is not None:
            assert isinstance(wanted.port, int)
            await self._watch_pods(wanted.pods, (wanted.port,))
        else:
            await self._watch_inference_pool(wanted.inference_pool or "")

    async def _watch_inference_pool(self, name: str) -> None:
        pools = Resource(
            "InferencePool",
            self._path(_POOLS, "inferencepools"),
            {"fieldSelector": f"metadata.name={name}"},
        )
        objectives = Resource(
            "InferenceObjectives", self._path(_OBJECTIVES, "inferenceobjectives"), {}
        )
        async with asyncio.TaskGroup() as group:

            def pool_changed(found: Mapping[str, InferencePool]) -> None:
                self._follow_pool(found.get(name), group)

            def objectives_changed(found: Mapping[str, InferenceObjective]) -> None:
                self._prioritize(priorities_of(found, name))

            group.create_task(self._watch(pools, InferencePool, pool_changed), name="pool")
            group.create_task(
                self._watch(objectives, InferenceObjective, objectives_changed), name="objectives"
            )

    def _follow_pool(self, pool: InferencePool | None, group: asyncio.TaskGroup) -> None:
        """Watch the pods that the pool selects now; without a pool, go on as before."""
        if pool is None:
            text = f"{self._wanted.inference_pool} does not exist"
            self._report.failed(text, "InferencePool")
            return
        if not pool.label_selector:
            self._report.failed("selects no labels; expected matchLabels", "InferencePool")
            return
        chosen = (pool.label_selector, pool.ports)
        if chosen == self._pool:
            return
        self._pool = chosen
        if self._pods is not None:
            self._pods.cancel()
        self._pods = group.create_task(self._watch_pods(*chosen), name="pods")

    async def _watch_pods(self, labels: str, ports: tuple[int, ...]) -> None:
        def changed(pods: Mapping[str, Pod]) -> None:
            scheme = self._wanted.scheme
            self._report.found(servers_of_pods(pods.values(), ports, scheme=scheme))

        path = f"/api/v1/namespaces/{self._namespace()}/pods"
        await self._watch(Resource("pods", path, {"labelSelector": labels}), Pod, changed)

    def _slices(self, slices: Mapping[str, EndpointSlice]) -> None:
        wanted = self._wanted
        try:
            servers = servers_of_slices(slices.values(), port=wanted.port, scheme=wanted.scheme)
        except ValueError as error:
            self._report.failed(str(error))
        else:
            self._report.found(servers)

    async def _watch(
        self, resource: Resource, kind: type[_T], changed: Callable[[Mapping[str, _T]], None]
    ) -> None:
        await ObjectWatch(
            resource,
            kind,
            wanted=self._wanted,
            report=self._report,
            changed=changed,
            pace=self._pace,
        ).run()

    def _path(self, group: str, plural: str) -> str:
        return f"/apis/{group}/namespaces/{self._namespace()}/{plural}"

    def _namespace(self) -> str:
        """The one that is wanted, else the pod's own, else `default`."""
        return self._wanted.namespace or _own_namespace(self._wanted.namespace_file)


def _own_namespace(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or "default"
    except (OSError, UnicodeDecodeError):
        return "default"
