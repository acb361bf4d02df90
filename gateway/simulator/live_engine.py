"""A simulated engine in real time: one timer that ends its steps, and listeners to its requests."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.simulator.engine import Engine, EngineRequest, Finished, FirstToken


class AnswerListener(Protocol):
    """Hears of the progress of one engine request."""

    def on_tokens(self, count: int) -> None:
        """So many output tokens are there (called for watched requests only)."""

    def on_finished(self) -> None:
        """All output tokens are there."""


class EngineObserver(Protocol):
    """Hears of what /metrics shows."""

    def on_first_token(self, request_id: str, at: float) -> None:
        """A request's first token came."""

    def on_finished(self, request_id: str, at: float) -> None:
        """A request ended."""

    def on_adapters(self, running: tuple[str, ...]) -> None:
        """The batch changed: these adapters run now."""


class LiveEngine:
    """Runs an engine on the event loop.

    Engine time is `time_scale` times as fast as the clock.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        clock: Callable[[], float],
        time_scale: float,
        observer: EngineObserver,
    ) -> None:
        """Wrap an idle engine; `clock` gives monotonic seconds."""
        self.engine = engine
        self._clock = clock
        self._time_scale = time_scale
        self._observer = observer
        self._began_at = clock()
        self._listeners: dict[str, AnswerListener] = {}
        self._watched: dict[str, AnswerListener] = {}
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Engine time in seconds, 0 at the start."""
        return (self._clock() - self._began_at) * self._time_scale

    def submit(self, request: EngineRequest, listener: AnswerListener, *, watched: bool) -> bool:
        """Hand a request to the engine; False if its queue is full.

        A watched request's listener hears of every step, others only of the end.
        """
        now = self._catch_up()
        accepted = self.engine.submit(request, now=now)
        if accepted:
            self._listeners[request.id] = listener
            if watched:
                self._watched[request.id] = listener
        self._arm()
        return accepted

    def abort(self, request_id: str) -> None:
        """Drop a request; unknown and finished ones are ignored."""
        if self._listeners.pop(request_id, None) is None:
            return
        self._watched.pop(request_id, None)
        self.engine.abort(request_id, now=self._catch_up())
        self._observer.on_adapters(self.engine.running_adapters())
        self._arm()

    def set_speed(self, factor: float) -> None:
        """Change the engine's speed from its next step on."""
        self.engine.set_speed(factor)

    def freeze(self) -> None:
        """Stop the engine's progress."""
        self.engine.freeze(now=self._catch_up())
        self._arm()

    def thaw(self) -> None:
        """Let a frozen engine go on."""
        self.engine.thaw(now=self.now())
        self._arm()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _catch_up(self) -> float:
        """End the steps that are due and tell the listeners; return engine time."""
        now = self.now()
        due = self.engine.next_event_at()
        if due is None or due > now:
            return now
        for event in self.engine.advance(now):
            if isinstance(event, FirstToken):
                self._observer.on_first_token(event.request_id, event.at)
            elif isinstance(event, Finished):
                self._watched.pop(event.request_id, None)
                self._observer.on_finished(event.request_id, event.at)
                if (listener := self._listeners.pop(event.request_id, None)) is not None:
                    listener.on_finished()
        self._observer.on_adapters(self.engine.running_adapters())
        # A listener may abort its request, or others, while it is told.
        for request_id, listener in list(self._watched.items()):
            count = self.engine.output_tokens(request_id)
            if count:
                listener.on_tokens(count)
        return now

    def _arm(self) -> None:
        self.close()
        due = self.engine.next_event_at()
        if due is not None:
            delay_s = max(0.0, (due - self.now()) / self._time_scale)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._catch_up()
        self._arm()
