"""What runs on each server: its progress for the scheduler, and when nothing is left there."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from gateway.scheduling.events import ResponseProgressed
from gateway.scheduling.model import BackendId, RequestId

PROGRESS_INTERVAL_S: Final = 0.25
"""At most 4 reports a second, as the scheduler's contract says."""


class Stream(Protocol):
    """One request on a server; `stream_events` is 0 until its answer streams."""

    stream_events: int


class OpenStreams:
    """The requests on every server of a pool, on one event loop."""

    def __init__(self, report: Callable[[ResponseProgressed], None]) -> None:
        """Tell `report` of each server's progress, from a timer that runs while anything is on."""
        self._report = report
        self._streams: dict[BackendId, dict[RequestId, Stream]] = {}
        self._when_empty: dict[BackendId, Callable[[], None]] = {}
        self._last_chunk_at: dict[BackendId, float] = {}
        self._new_chunk_at: dict[BackendId, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def on(self, backend_id: BackendId) -> int:
        """Requests that were sent to the server, or are about to be, and have not ended."""
        return len(self._streams.get(backend_id, ()))

    def opened(self, backend_id: BackendId, request_id: RequestId, stream: Stream) -> None:
        """Include a request in the reports of its server."""
        self._streams.setdefault(backend_id, {})[request_id] = stream
        self._arm()

    def closed(self, backend_id: BackendId, request_id: RequestId) -> None:
        """Leave a request out from now on."""
        streams = self._streams[backend_id]
        del streams[request_id]
        if not streams:
            del self._streams[backend_id]
            self._last_chunk_at.pop(backend_id, None)
            self._new_chunk_at.pop(backend_id, None)
            if backend_id in self._when_empty:
                # Not now: the scheduler is yet to be told of the end.
                asyncio.get_running_loop().call_soon(self._when_empty.pop(backend_id))

    def call_when_empty(self, backend_id: BackendId, action: Callable[[], None]) -> None:
        """Call `action` soon after the last request at the server has ended, once.

        It may be sent another one before that: `action` must look. It replaces an earlier one.
        """
        if backend_id in self._streams:
            self._when_empty[backend_id] = action
        else:
            asyncio.get_running_loop().call_soon(action)

    def chunk_seen(self, backend_id: BackendId, at: float) -> None:
        """Note the phase of a server's steps; called per network chunk, so it only stores."""
        self._new_chunk_at[backend_id] = at

    def take_new_chunks(self) -> tuple[tuple[BackendId, float], ...]:
        """When the newest chunk of each server came, of those with one since the last call."""
        new_chunks = tuple(self._new_chunk_at.items())
        if new_chunks:
            self._last_chunk_at.update(new_chunks)
            self._new_chunk_at.clear()
        return new_chunks

    def stop(self) -> None:
        """Report no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if not self._streams or self._stopped or self._timer is not None:
            return
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_INTERVAL_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        for backend_id, streams in list(self._streams.items()):
            progress = tuple(
                (request_id, stream.stream_events)
                for request_id, stream in streams.items()
                if stream.stream_events
            )
            if progress:
                last_chunk_at = self._new_chunk_at.get(backend_id)
                if last_chunk_at is None:
                    last_chunk_at = self._last_chunk_at.get(backend_id, 0.0)
                self._report(ResponseProgressed(backend_id, progress, last_chunk_at))
        self._arm()
