"""Watches every model server of one pool: health, models, load. Off the path of requests."""

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Final

from gateway.runtime.clock import Clock
from gateway.runtime.patient_timeout import PatientTimeout
from gateway.scheduling.events import (
    BackendDraining,
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    FailureKind,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendId, ServedModel
from gateway.server.backend_client import FetchedResponse
from gateway.server.backend_connection import BackendFailure
from gateway.server.backend_directory import BackendDirectory
from gateway.server.contact import Contact
from gateway.server.options import MonitorOptions
from gateway.wire.engine_metrics import scan_metrics
from gateway.wire.model_list import scan_models

_LOG = logging.getLogger(__name__)
_PAUSE_PER_SERVER_S: Final = 0.002
"""A page of metrics takes some .3 ms to fetch and read: polls of a pool take a sixth of the
process's time, where more would leave too little to its requests."""
_LONGEST_PAUSE_S: Final = 0.8
"""Reports that are older than a second no longer tell that a server has a queue of its own."""


class BackendMonitor:
    """Polls /health, /v1/models and /metrics of each server, each server on its own.

    A server joins when it is healthy and lists its models, and leaves when /health fails several
    times in a row, when nobody listens there, or when it hangs: /health is silent for as long as so
    many looks may take, and so is every answer. Then requests without a first byte are taken back.
    Failing scrapes of /metrics take nothing out: they only make the load report older. Each change,
    and why, is one line of the log.
    """

    def __init__(
        self,
        *,
        backends: BackendDirectory,
        deliver: Callable[[SchedulerEvent], None],
        clock: Clock,
        rng: Random,
        options: MonitorOptions,
    ) -> None:
        self._backends = backends
        self._deliver = deliver
        self._clock = clock
        self._rng = rng
        self._options = options
        self._watches: dict[BackendId, _Watch] = {}
        for backend_id in backends:
            self._new_watch(backend_id, draining=False)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for watch in self._watches.values():
                    self._start(watch, group)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def reconfigure(self, options: MonitorOptions) -> None:
        """Watch in another way from the next look on."""
        self._options = options

    def add(self, backend_id: BackendId, *, draining: bool) -> None:
        """Watch one more server, which the directory has."""
        watch = self._new_watch(backend_id, draining=draining)
        if self._group is not None:
            self._start(watch, self._group)

    def _new_watch(self, backend_id: BackendId, *, draining: bool) -> "_Watch":
        contact = Contact(draining=draining, clock=self._clock)
        self._backends.keep_contact(backend_id, contact)
        watch = self._watches[backend_id] = _Watch(backend_id, contact)
        return watch

    def drain(self, backend_id: BackendId) -> None:
        """Let a server have nothing new; what runs there goes on."""
        watch = self._watches[backend_id]
        watch.contact.draining = True
        self._backends.set_unusable(backend_id)
        if watch.joined:
            self._deliver(BackendDraining(backend_id))

    def resume(self, backend_id: BackendId) -> None:
        """Let a server that was draining take requests again, as soon as it is healthy."""
        watch = self._watches[backend_id]
        watch.contact.draining = False
        self._join(watch)

    def remove(self, backend_id: BackendId) -> None:
        """Watch a server no longer."""
        watch = self._watches.pop(backend_id)
        for task in watch.tasks:
            task.cancel()
        self._leave(watch, for_good=True)

    def is_healthy(self, backend_id: BackendId) -> bool:
        """Whether a server is up and lists models, draining or not."""
        return self._watches[backend_id].models is not None

    def _start(self, watch: "_Watch", group: asyncio.TaskGroup) -> None:
        name = watch.backend_id
        watch.tasks = (
            group.create_task(self._watch_health(watch), name=f"health of {name}"),
            group.create_task(self._watch_metrics(watch), name=f"metrics of {name}"),
        )

    async def _watch_health(self, watch: "_Watch") -> None:
        suspicion = self._backends.suspicion(watch.backend_id)
        while True:
            suspicion.clear()
            await self._check_health(watch)
            await self._pause(self._options.health_interval_s, suspicion)

    async def _check_health(self, watch: "_Watch") -> None:
        options, client = self._options, self._backends.client(watch.backend_id)
        refused = hangs = False
        began_at = self._clock()
        try:
            # One long look instead of several short ones: a slow server may answer it yet.
            patience_s = options.timeout_s * options.failures_to_leave
            status = (await self._fetch(watch, "/health", patience_s)).status
            trouble = "" if status == 200 else f"/health answers {status}"
        except BackendFailure as failure:
            trouble = failure.detail
            refused = failure.kind is FailureKind.CONNECT
            hangs = failure.kind is FailureKind.TIMEOUT
        if hangs and client.heard_since(began_at):
            return
        if trouble:
            watch.failures += 1
            if refused or hangs or watch.failures >= options.failures_to_leave:
                self._leave(watch)
                watch.say_out(trouble)
                if hangs:
                    client.give_up_unanswered()
            return
        watch.failures = 0
        models_age_s = self._clock() - watch.models_read_at
        if watch.models is None or models_age_s >= self._options.models_interval_s:
            await self._read_models(watch)

    async def _read_models(self, watch: "_Watch") -> None:
        try:
            page = await self._fetch(watch, "/v1/models", self._options.timeout_s)
        except BackendFailure as failure:
            watch.say_out(failure.detail)
            return
        models = scan_models(page.body) if page.status == 200 else None
        if models is None:
            watch.say_out(f"/v1/models answers {page.status} without a list of models")
            return
        watch.models_read_at = self._clock()
        if models != watch.models:
            watch.models = models
            watch.contact.made()
            self._join(watch)

    def _join(self, watch: "_Watch") -> None:
        if watch.models is not None and not watch.contact.draining:
            watch.joined = watch.was_joined = True
            watch.say_in(len(watch.models))
            self._backends.set_models(watch.backend_id, watch.models)
            self._deliver(BackendJoined(watch.backend_id, watch.models))

    def _leave(self, watch: "_Watch", *, for_good: bool = False) -> None:
        watch.models = None
        watch.contact.lost()
        if watch.joined:
            watch.joined = False
            self._backends.set_unusable(watch.backend_id)
        elif not (for_good and watch.was_joined):
            return
        self._deliver(BackendLeft(watch.backend_id, for_good))

    async def _watch_metrics(self, watch: "_Watch") -> None:
        while True:
            if watch.joined:
                await self._read_metrics(watch)
            pause_s = metrics_pause_s(self._options.metrics_interval_s, len(self._watches))
            await asyncio.sleep(self._varied(pause_s))

    async def _read_metrics(self, watch: "_Watch") -> None:
        taken_at = self._clock()
        try:
            page = await self._fetch(watch, "/metrics", self._options.timeout_s)
        except BackendFailure as failure:
            if failure.kind in (FailureKind.CONNECT, FailureKind.TIMEOUT):
                self._backends.suspect(watch.backend_id)
            return
        # The server may have left while the page was on its way.
        if page.status == 200 and watch.joined:
            load = scan_metrics(page.body)
            self._deliver(BackendLoadReported(watch.backend_id, load, taken_at))

    async def _fetch(self, watch: "_Watch", path: str, bound_s: float) -> FetchedResponse:
        try:
            async with PatientTimeout(bound_s):
                return await self._backends.client(watch.backend_id).fetch(path)
        except TimeoutError:
            raise BackendFailure(FailureKind.TIMEOUT, f"{path} took too long") from None

    async def _pause(self, interval_s: float, wake: asyncio.Event) -> None:
        """Wait for about `interval_s`, or for `wake`."""
        try:
            async with asyncio.timeout(self._varied(interval_s)):
                await wake.wait()
        except TimeoutError:
            return

    def _varied(self, interval_s: float) -> float:
        """About `interval_s`, so that servers are not asked in step."""
        return interval_s * self._rng.uniform(0.9, 1.1)


def metrics_pause_s(interval_s: float, servers: int) -> float:
    """How long to wait between two polls of one server's /metrics, in a pool of so many.

    As configured up to 50 servers at an interval of 100 ms; longer in larger pools, up to .8 s.
    """
    return max(interval_s, min(_LONGEST_PAUSE_S, _PAUSE_PER_SERVER_S * servers))


class _Watch:
    """What is known of one server; `models` is None while it is out.

    `joined` says whether the scheduler has it: from its joining until it leaves, so also while it
    drains; `was_joined` whether it ever had.
    """

    def __init__(self, backend_id: BackendId, contact: Contact) -> None:
        self.backend_id = backend_id
        self.contact = contact
        self.joined = self.was_joined = False
        self.tasks: tuple[asyncio.Task[None], ...] = ()
        self.failures = 0
        self.models: tuple[ServedModel, ...] | None = None
        self.models_read_at = 0.0
        self._said = ""

    def say_in(self, models: int) -> None:
        """Tell the log that the server takes requests."""
        self._said = ""
        _LOG.info("server %s is in, models: %d", self.backend_id, models)

    def say_out(self, trouble: str) -> None:
        """Tell the log why the server takes no requests, once; nothing while it still does."""
        if self.models is not None:
            return
        self.contact.failed(trouble)
        if trouble != self._said:
            self._said = trouble
            _LOG.warning("server %s is out: %s", self.backend_id, trouble)
