"""The limit on open files, and how many streams it leaves room for."""

import contextlib
import resource

_DESCRIPTORS_PER_STREAM = 2
_DESCRIPTORS_KEPT = 200
"""Descriptors that are not streams: listeners, polls of servers, files, the interpreter's."""


def raise_open_file_limit() -> None:
    """Raise the soft limit on open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def streams_allowed() -> int:
    """How many streams the limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft - _DESCRIPTORS_KEPT) // _DESCRIPTORS_PER_STREAM
