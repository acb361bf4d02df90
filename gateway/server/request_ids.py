"""The gateway's own ids of requests."""


class RequestIds:
    """Ids that begin alike and end in a number, each told once; valid as X-Request-Id.

    Not `uuid4`: that asks the system for random bytes, and costs several times as much.
    """

    def __init__(self, prefix: str) -> None:
        """`prefix` is what the ids of other processes hardly begin with."""
        self._begin = f"{prefix}-"
        self._last = 0

    def new(self) -> str:
        """Make the next one."""
        self._last += 1
        return self._begin + hex(self._last)[2:]  # noqa: FURB116 - hot
