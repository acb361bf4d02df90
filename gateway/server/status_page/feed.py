"""Live state for those who watch: one sampler, whoever and however many they are.

A point of history is made every two seconds; the whole state is looked at and encoded once a
second, and only while somebody watches.
"""

import asyncio

from gateway.runtime.clock import Clock
from gateway.server.client_channel import ClientChannel
from gateway.server.status_page.sampler import StatusSampler

HISTORY_INTERVAL_S = 2.0
STATE_INTERVAL_S = 1.0
MAX_VIEWERS = 16
_GIVE_UP_ON_READER_S = 30.0
_STREAM_HEADERS = (
    b"content-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"x-accel-buffering: no\r\nx-content-type-options: nosniff\r\n"
)


class _Viewer:
    """One stream of events; it never holds more than the client's socket buffer."""

    def __init__(self, channel: ClientChannel, *, now: float) -> None:
        self.channel = channel
        self.next_point = 0
        self.read_at = now
        self.over = asyncio.Event()


class StatusFeed:
    """Streams server-sent events `state` and `points`; run it beside the requests.

    Attributes:
        viewers: how many watch.
    """

    def __init__(self, *, sampler: StatusSampler, clock: Clock) -> None:
        self._sampler = sampler
        self._clock = clock
        self._viewers: set[_Viewer] = set()
        self._somebody_came = asyncio.Event()
        self._stopped = False

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def run(self) -> None:
        """Sample and send until cancelled; then end all streams."""
        history_due = self._clock()
        try:
            while True:
                now = self._clock()
                if now >= history_due:
                    self.sample()
                    history_due = now + HISTORY_INTERVAL_S
                if self._viewers:
                    self._send_all(now)
                pause_s = STATE_INTERVAL_S if self._viewers else history_due - self._clock()
                await self._pause(pause_s)
        finally:
            self._stopped = True
            for viewer in self._viewers:
                viewer.over.set()

    def sample(self) -> None:
        """Add a point to the history."""
        self._sampler.make_point()

    async def watch(self, channel: ClientChannel) -> bool:
        """Send events on `channel` until the client leaves or the gateway stops.

        Returns:
            False, with nothing written, where as many as may watch do so already.
        """
        if len(self._viewers) >= MAX_VIEWERS or self._stopped:
            return False
        viewer = _Viewer(channel, now=self._clock())
        channel.open(200, _STREAM_HEADERS, length=None)
        self._viewers.add(viewer)
        self._somebody_came.set()
        try:
            await viewer.over.wait()
        finally:
            self._viewers.discard(viewer)
        if not channel.congested:
            channel.write(b"", last=True)
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait; shorter where somebody comes to watch."""
        try:
            async with asyncio.timeout(seconds):
                await self._somebody_came.wait()
        except TimeoutError:
            pass
        self._somebody_came.clear()

    def _send_all(self, now: float) -> None:
        state = b"event: state\ndata: %b\n\n" % self._sampler.state()
        history = self._sampler.history
        for viewer in self._viewers:
            channel = viewer.channel
            if channel.congested:
                if now - viewer.read_at > _GIVE_UP_ON_READER_S:
                    viewer.over.set()
                continue
            viewer.read_at = now
            points = b""
            if viewer.next_point < history.made:
                points = b"event: points\ndata: %b\n\n" % history.since(viewer.next_point)
                viewer.next_point = history.made
            channel.write(state + points, last=False)
