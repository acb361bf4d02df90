"""What gateways are told of servers: joined, polled loads, progress of streams, gone."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random

from gateway.scheduling.events import (
    BackendJoined,
    BackendLeft,
    BackendLoadReported,
    ResponseProgressed,
    SchedulerEvent,
)
from gateway.scheduling.model import BackendLoad, RequestId, ServedModel
from gateway.simulator.fleet_model import FleetOptions
from gateway.simulator.fleet_records import Gateway, Server
from gateway.simulator.timeline import Timeline

Tell = Callable[[Gateway, SchedulerEvent], None]
"""Gives an event to a gateway and carries out what it decides."""


class FleetMonitor:
    """Polls every server for every gateway, with interval, age and jitter, as the live monitor."""

    def __init__(
        self,
        *,
        gateways: Sequence[Gateway],
        timeline: Timeline,
        options: FleetOptions,
        rng: Random,
        tell: Tell,
    ) -> None:
        """Draw phases and jitter of the polls from `rng`."""
        self._gateways = gateways
        self._timeline = timeline
        self._options = options
        self._rng = rng
        self._tell = tell

    def join(self, server: Server) -> None:
        """A server is there: its models, a first scrape, then polls from a random phase on."""
        base = self._options.base_model
        adapters = (ServedModel(name, base) for name in self._options.adapters)
        joined = BackendJoined(server.id, (ServedModel(base), *adapters))
        for gateway in self._gateways:
            self._tell(gateway, joined)
            load = server.engine.load()
            self._tell(gateway, BackendLoadReported(server.id, load, self._timeline.now))
            phase = self._rng.random() * self._options.poll_interval_s
            self._timeline.after(phase, partial(self._poll, gateway, server))

    def lose(self, server: Server) -> None:
        """A server has died; the gateways notice after `detection_s`."""
        for gateway in self._gateways:
            left = partial(self._tell, gateway, BackendLeft(server.id))
            self._timeline.after(self._options.detection_s, left)

    def watch_progress(self, server: Server) -> None:
        """Report the progress of the server's streams until it has none."""
        interval_s = self._options.progress_interval_s
        if interval_s is not None and not server.progress_armed:
            server.progress_armed = True
            self._timeline.after(interval_s, partial(self._progress, server))

    def _progress(self, server: Server) -> None:
        server.progress_armed = False
        if not server.flights or not server.alive:
            return
        tokens_of = server.engine.output_tokens
        several = len(self._gateways) > 1
        for gateway in self._gateways:
            streams: Iterable[RequestId] = server.streams
            if several:
                streams = [id_ for id_, f in server.streams.items() if f.gateway is gateway]
            progress = tuple([(id_, tokens_of(id_)) for id_ in streams])
            if progress:
                seen_at = server.stepped_at + self._options.gateway_delay_s
                self._tell(gateway, ResponseProgressed(server.id, progress, seen_at))
        self.watch_progress(server)

    def _poll(self, gateway: Gateway, server: Server) -> None:
        if not server.alive:
            return
        options, timeline = self._options, self._timeline
        report = partial(self._report, gateway, server, server.engine.load(), timeline.now)
        timeline.after(options.poll_latency_s, report)
        spread = 1.0 + options.poll_jitter * (2.0 * self._rng.random() - 1.0)
        timeline.after(options.poll_interval_s * spread, partial(self._poll, gateway, server))

    def _report(self, gateway: Gateway, server: Server, load: BackendLoad, taken_at: float) -> None:
        if server.alive:
            self._tell(gateway, BackendLoadReported(server.id, load, taken_at))
