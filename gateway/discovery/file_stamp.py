"""Whether a file has changed since the last look.

Looking now and then works for every file system (a volume of Kubernetes, a network mount), where
notifications of changes do not, and needs no library.
"""

from pathlib import Path
from typing import NamedTuple


class FileStamp(NamedTuple):
    """What tells versions of a file apart; a ConfigMap is replaced by way of a symbolic link."""

    inode: int
    modified_ns: int
    size: int


def stamp_of(path: Path) -> FileStamp | None:
    """What the file is now; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileStamp(found.st_ino, found.st_mtime_ns, found.st_size)
