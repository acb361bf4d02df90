"""Whether one server answers: what looking at it has shown, for whoever watches the gateway."""

from gateway.runtime.clock import Clock
from gateway.scheduling.snapshot import Silence


class Contact:
    """Written by the monitor, whether the scheduler has met the server or not.

    Attributes:
        healthy: it is up and lists models.
        draining: it is to get nothing new.
    """

    __slots__ = ("_clock", "_since", "_trouble", "_was_healthy", "draining", "healthy")

    def __init__(self, *, draining: bool, clock: Clock) -> None:
        """Start with a server that nobody has looked at."""
        self.draining = draining
        self.healthy = False
        self._clock = clock
        self._since = clock()
        self._was_healthy = False
        self._trouble: str | None = None

    def made(self) -> None:
        """Note that it is up and lists models."""
        self.healthy = self._was_healthy = True
        self._trouble = None

    def lost(self) -> None:
        """Note that it is out."""
        if self.healthy:
            self.healthy = False
            self._since = self._clock()

    def failed(self, trouble: str) -> None:
        """Note what the newest look at it has shown while it is out."""
        self._trouble = trouble

    def silence(self) -> Silence | None:
        """What is known of a server that is out; None of one that is not."""
        if self.healthy:
            return None
        return Silence(
            was_heard=self._was_healthy, for_s=self._clock() - self._since, trouble=self._trouble
        )
