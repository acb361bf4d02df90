"""One kind of Kubernetes objects, kept as the API server has them: list, watch, list again."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from random import Random
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from gateway.discovery.kubernetes_api import (
    ApiError,
    ExpiredError,
    KubernetesApi,
    WatchEvent,
    decoded,
)
from gateway.discovery.report import SourceReport
from gateway.runtime.clock import Clock
from gateway.settings.discovery import KubernetesDiscovery

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_SHORT_WATCH_S = 1.0
"""A watch that ends in good order, but sooner than this, is not followed by another at once."""


class ObjectMeta(msgspec.Struct):
    """What every object has."""

    name: str
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    deletion_timestamp: str | None = msgspec.field(default=None, name="deletionTimestamp")


class KubernetesObject(Protocol):
    """An object with a name."""

    @property
    def metadata(self) -> ObjectMeta:
        """Name and version."""
        ...


_T = TypeVar("_T", bound=KubernetesObject)


class Resource(NamedTuple):
    """Objects at a path of the API; `part` names them in the log."""

    part: str
    path: str
    query: Mapping[str, str]


class Pace(NamedTuple):
    """How fast the API is asked again after a failure: twice as late each time, up to a bound.

    The pause is the first one again after an attempt that brought news or that lasted: an API whose
    watches break, but which answers, is followed closely.
    """

    clock: Clock
    rng: Random
    first_pause_s: float = _FIRST_PAUSE_S


class _Bookmark(msgspec.Struct):
    metadata: "_BookmarkMeta"


class _BookmarkMeta(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")


class ObjectWatch(Generic[_T]):
    """Tells the whole set of objects after every change; run it in a TaskGroup.

    A watch that the server ends in good order is taken up at the last version that was seen (which
    bookmarks keep young). After anything else, an expired version among it, everything is listed
    again, so that no change can be lost.
    """

    def __init__(
        self,
        resource: Resource,
        kind: type[_T],
        *,
        wanted: KubernetesDiscovery,
        report: SourceReport,
        changed: Callable[[Mapping[str, _T]], None],
        pace: Pace,
    ) -> None:
        """`changed` takes the objects by name."""
        self._resource = resource
        self._kind = kind
        self._wanted = wanted
        self._report = report
        self._changed = changed
        self._pace = pace
        self._objects: dict[str, _T] = {}
        self._had_news = False

    async def run(self) -> None:
        """Keep up until cancelled."""
        pause_s = self._pace.first_pause_s
        while True:
            began_at = self._pace.clock()
            self._had_news = False
            try:
                async with KubernetesApi(self._wanted) as api:
                    await self._follow(api)
            except ExpiredError:
                pass  # as happens after a long silence: nothing is wrong
            except ApiError as error:
                self._report.failed(str(error), self._resource.part)
            if self._had_news or self._pace.clock() - began_at > pause_s:
                pause_s = self._pace.first_pause_s
            await asyncio.sleep(pause_s * self._pace.rng.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _follow(self, api: KubernetesApi) -> None:
        """List, then watch for as long as watches end in good order; ApiError."""
        _, path, query = self._resource
        listed = await api.list(path, query)
        objects = [decoded(item, self._kind) for item in listed.items]
        named = {each.metadata.name: each for each in objects}
        self._had_news = named != self._objects
        self._objects = named
        version = listed.version
        self._tell()
        while True:
            began_at = self._pace.clock()
            async with aclosing(api.watch(path, query, version)) as events:
                async for event in events:
                    version = self._take(event)
            if self._pace.clock() - began_at < _SHORT_WATCH_S:
                return
            self._report.in_touch(self._resource.part)

    def _take(self, event: WatchEvent) -> str:
        """Follow one event; return the version that it is of."""
        if event.type == "BOOKMARK":
            self._report.in_touch(self._resource.part)
            return decoded(event.object, _Bookmark).metadata.resource_version
        subject = decoded(event.object, self._kind)
        if event.type == "DELETED":
            self._objects.pop(subject.metadata.name, None)
        else:
            self._objects[subject.metadata.name] = subject
        self._had_news = True
        self._tell()
        return subject.metadata.resource_version

    def _tell(self) -> None:
        self._report.in_touch(self._resource.part)
        self._changed(self._objects)
