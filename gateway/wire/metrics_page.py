"""Finds a few series in a page of Prometheus metrics.

The wanted names are found by `bytes.find`; nothing else is parsed (a full parse of vLLM's page of
57 kB takes 13 ms, this some 30 us). Whatever a server sends, nothing here raises.
"""

from typing import Final

_MAX_VALUE: Final = float(1 << 53)
_ENDS_OF_NAME: Final = (b"{", b" ")


class MetricsPage:
    """Looks names up in a page, from where the last one was found: pages keep an order."""

    def __init__(self, page: bytes) -> None:
        self._page = b"\n" + page
        self._at = 0

    def has_names_with(self, prefix: bytes) -> bool:
        """Whether some sample's name begins so."""
        return self._page.find(b"\n" + prefix) >= 0

    def samples(self, name: bytes) -> list[tuple[bytes, float]]:
        """The series of `name`, which stand together: (labels, value)."""
        start = b"\n" + name
        at = self._find(start)
        found = []
        while at >= 0 and self._is_sample(start, at):
            self._at = at
            at = self._page.find(b"\n", at + 1)
            line = self._page[self._at + len(start) : at if at >= 0 else None]
            labels, _, text = line.rpartition(b"}")
            value = number_of(text)
            if value is not None:
                found.append((labels, value))
        return found

    def buckets(self, histogram: bytes) -> bytes:
        """The lines of a histogram's buckets, newline-terminated; empty without any."""
        at = self._find(b"\n" + histogram + b"_bucket")
        if at < 0:
            return b""
        self._at = at
        end = self._page.find(b"\n" + histogram + b"_count", at)
        return self._page[at + 1 : end if end >= 0 else None] + b"\n"

    def _find(self, start: bytes) -> int:
        """Where the first sample of a name is, or -1; looks behind the last one found first."""
        for begin, end in ((self._at, len(self._page)), (0, self._at + len(start))):
            at = self._page.find(start, begin, end)
            while at >= 0:
                if self._is_sample(start, at):
                    return at
                at = self._page.find(start, at + len(start), end)
        return -1

    def _is_sample(self, start: bytes, at: int) -> bool:
        """Whether a line begins with the name, and with no longer one."""
        end = at + len(start)
        return self._page.startswith(start, at) and self._page[end : end + 1] in _ENDS_OF_NAME

    def total(self, name: bytes, *, having: bytes = b"") -> float | None:
        """Sum over the series whose labels include `having`; None without any."""
        values = [value for labels, value in self.samples(name) if having in labels]
        return sum(values) if values else None

    def mean(self, name: bytes) -> float | None:
        """Mean over the series; None without any."""
        values = [value for _, value in self.samples(name)]
        return sum(values) / len(values) if values else None

    def counter(self, name: bytes) -> float | None:
        """Sum over the series of a counter, with or without the suffix `_total`."""
        total = self.total(name + b"_total")
        return self.total(name) if total is None else total


def number_of(text: bytes) -> float | None:
    """A sample's value (a timestamp may follow it), or None if it can be no count."""
    try:
        value = float(text.split(None, 1)[0])
    except (ValueError, IndexError):
        return None
    return value if 0.0 <= value <= _MAX_VALUE else None
