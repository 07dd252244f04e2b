"""Has the kernel tell of writes to a file, by whatever process: inotify, on Linux."""

import ctypes
import os
from functools import cache
from pathlib import Path

_IN_MODIFY = 2


class FileWrites:
    """Tells that somebody may have written to files that are watched.

    Only as a hint: where the kernel has no inotify, or no more of it for this user,
    nothing is told.
    """

    def __init__(self) -> None:
        found = _inotify("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self.descriptors = [found] if found >= 0 else []
        """It can be read once there were writes, and is to be read to hear of the next
        ones; none where nothing is told."""

    def watch(self, path: Path) -> bool:
        """Watch the file that the path names just now; return whether that works.

        To watch a file again changes nothing.
        """
        name = os.fsencode(path)
        return all(
            _inotify("inotify_add_watch", descriptor, name, _IN_MODIFY) >= 0
            for descriptor in self.descriptors
        ) and bool(self.descriptors)

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())


def _inotify(name: str, *arguments: int | bytes) -> int:
    """Return what this function of the C library does; -1 where there is none."""
    try:
        return int(getattr(_c_library(), name)(*arguments))
    except (AttributeError, OSError):
        return -1


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
