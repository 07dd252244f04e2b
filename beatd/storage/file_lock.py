"""A kernel lock on a file: one process has it, and it is gone with its process."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

_all: "WeakSet[FileLock]" = WeakSet()


class FileLock:
    """An flock on a file of its own, whose text says for people who holds it.

    The file that is guarded cannot carry the lock itself: SQLite locks it too, and on
    some file systems (NFS) the two kinds of lock are one. A stopped process keeps its
    lock, a killed one has none. The lock's file stays when nobody holds it: removing
    it would let two processes lock two files of one name.
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
        """Take the lock and leave `words` for people; False while another has it.

        Raises OSError when the lock's file cannot be opened.
        """
        if self.held:
            return True
        descriptor = self._open_locked()
        if descriptor is None:
            return False
        self._descriptor = descriptor
        # A full disk takes away the words and leaves the lock.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, words.encode(), 0)
        return True

    def unlock(self) -> None:
        """Let others take the lock; nothing if this object does not have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            # Not only closed: a child that was just forked may have a copy still.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def is_free(self) -> bool:
        """Say whether nobody has the lock, this object included.

        Raises OSError when the lock's file cannot be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return True
        try:
            # Shared: several who ask at once are not in each other's way.
            free = self._lock(descriptor, fcntl.LOCK_SH)
            return free and self._is_current(descriptor)
        finally:
            os.close(descriptor)

    def holder(self) -> str:
        """Give the words of who has the lock, as far as they can be read."""
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
            os.close(descriptor)  # somebody removed it: another one has the name

    def _lock(self, descriptor: int, how: int) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still names this file: someone may have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _leave_to_parent(self) -> None:
        if self._descriptor is not None:
            # Closed and not unlocked: the lock belongs to both copies.
            os.close(self._descriptor)
            self._descriptor = None


def _after_fork_in_child() -> None:
    # A child that kept the descriptor would keep the lock of a parent that is dead.
    for lock in list(_all):
        lock._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
