"""A kernel lock on a file: one process has it, and it is gone with its process."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

_all: "WeakSet[FileLock]" = WeakSet()


class FileLock:
    """An flock on a file of its own, with a text that names the holder to people.

    The guarded file cannot carry the lock itself: SQLite locks that file, too, and on
    some file systems (NFS) the two kinds of lock are one. A stopped process keeps its
    lock, a killed one has none. The lock's file stays when nobody has the lock:
    removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self.path = path
        self._mode = mode
        self._descriptor: int | None = None
        _all.add(self)

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._descriptor is not None

    def try_lock(self, words: str) -> bool:
        """Take the lock, with `words` in its file; False while another one has it.

        Raises OSError when the lock's file cannot be opened.
        """
        if self.held:
            return True
        descriptor = self._open_locked()
        if descriptor is None:
            return False
        self._descriptor = descriptor
        # On a full disk the lock holds without the words.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, words.encode(), 0)
        return True

    def unlock(self) -> None:
        """Let others take the lock; do nothing if this object does not have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            # Closing is not enough: a child just forked may still have a copy.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def is_free(self) -> bool:
        """Return whether nobody has the lock, this object included.

        Raises OSError when the lock's file cannot be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return True
        try:
            # Shared: several processes that ask at once do not block each other.
            free = self._lock(descriptor, fcntl.LOCK_SH)
            return free and self._is_current(descriptor)
        finally:
            os.close(descriptor)

    def holder(self) -> str:
        """Return the words that the holder left; empty if they cannot be read."""
        try:
            return self.path.read_text(errors="replace").strip()
        except OSError:
            return ""

    def _open_locked(self) -> int | None:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, self._mode)
            if not self._lock(descriptor, fcntl.LOCK_EX):
                os.close(descriptor)
                return None
            if self._is_current(descriptor):
                return descriptor
            os.close(descriptor)  # somebody removed the file: the path names another

    def _lock(self, descriptor: int, how: int) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the path still names this file: it may have been removed."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _leave_to_parent(self) -> None:
        if self._descriptor is not None:
            # Closed but not unlocked: unlocking would end the parent's lock as well.
            os.close(self._descriptor)
            self._descriptor = None


def _after_fork_in_child() -> None:
    # A child that kept the descriptor would keep the lock when the parent dies.
    for lock in list(_all):
        lock._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
