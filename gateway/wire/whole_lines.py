"""Cuts a stream of bytes into lines and changes them one by one."""

from collections.abc import Callable


class WholeLines:
    """Gives each whole line to `change`; a line over `max_held_bytes` passes unchanged."""

    def __init__(self, change: Callable[[bytes], bytes], max_held_bytes: int) -> None:
        """`change` gets a line with its line end and returns what takes its place."""
        self._change = change
        self._max_held_bytes = max_held_bytes
        self._held = bytearray()
        self._passing = False

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the stream -> those that are ready."""
        passed = b""
        if self._passing:
            end = data.find(b"\n") + 1
            if not end:
                return data
            passed, data = data[:end], data[end:]
            self._passing = False
        cut = data.rfind(b"\n") + 1
        if cut:
            lines = (self._held + data[:cut]).split(b"\n")
            passed += b"".join(self._change_line(bytes(line) + b"\n") for line in lines[:-1])
            self._held.clear()
        self._held += data[cut:]
        if len(self._held) > self._max_held_bytes:
            self._passing = True
            passed += self.flush()
        return passed

    def flush(self) -> bytes:
        """What is still held."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _change_line(self, line: bytes) -> bytes:
        return self._change(line) if len(line) <= self._max_held_bytes + 1 else line
