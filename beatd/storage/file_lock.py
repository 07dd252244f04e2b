"""A kernel lock on a file: one process has it, and it is gone with its process."""

import errno
import fcntl
import os
import re
import stat
import threading
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from beatd.event_log import EventLog

tell = EventLog(__name__)

_BEFORE = "locked by "
_OURS = re.compile(rf"{_BEFORE}[^\n]*|[^\n]*\bpid \d+\b[^\n]*")
"""What is in a lock's file: the holder's words, as they are and were written."""

_LONGEST = 1000
"""The most bytes that are read of a lock's file."""

_TRIES = 1000
"""How often to try while others only look; one of them may have been stopped."""

_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""Open no link's target, wait for nobody, and take no terminal."""


class NotALock(OSError):
    """What lies at a lock's path is not a lock's file of beatd; it is left as it is."""

    def __init__(self, path: Path, problem: str) -> None:
        words = f"{problem}: it was left as it is; move it away, or name another file"
        super().__init__(errno.EINVAL, words, str(path))

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


_all: "WeakSet[FileLock]" = WeakSet()

_one_at_a_time = threading.Lock()
"""A thread that looks at a lock is not to keep another thread from taking it."""


class FileLock:
    """An flock on a file of its own, with a text that names the holder to people.

    The guarded file cannot carry the lock itself: SQLite locks that file, too, and on
    some file systems (NFS) the two kinds of lock are one. A stopped process keeps its
    lock, a killed one has none. The lock's file stays when nobody has the lock.

    The file is a plain one with one name, and no link leads to it. It has nothing in
    it, or what `ours` matches: anything else is refused, and left as it is. Who holds
    the lock of a file that was removed or replaced does not hold it any more.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: int = 0o600,
        before: str = _BEFORE,
        ours: re.Pattern[str] = _OURS,
    ) -> None:
        """Words are written after `before`; `ours` matches what may be overwritten."""
        self.path = path
        self._mode = mode
        self._before = before
        self._ours = ours
        self._descriptor: int | None = None
        _all.add(self)

    @property
    def held(self) -> bool:
        """Whether this object took the lock; see `holds`."""
        return self._descriptor is not None

    def holds(self) -> bool:
        """Return whether this object has the lock, and the path still names its file.

        Raises OSError when that cannot be found out.
        """
        return self._descriptor is not None and self._is_current(self._descriptor)

    def try_lock(self, words: str) -> bool:
        """Take the lock, with `words` in its file; False while another one has it.

        A lock whose file was removed or replaced is taken anew. Raises OSError when the
        lock's file cannot be opened; NotALock when it is none of ours.
        """
        if self.holds():
            return True
        if self.held:
            lost = "%s was removed or replaced while it was locked: to be locked anew"
            tell.warning("lock.lost", lost, self.path)
            self.unlock()
        descriptor = self._open_locked()
        if descriptor is None:
            return False
        self._descriptor = descriptor
        text = f"{self._before}{words}".encode()
        # On a full disk the lock holds without the words: those of a former holder are
        # gone first of all.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
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

    def remove(self) -> None:
        """Remove the file, unless the path names another one by now, and unlock."""
        with suppress(OSError):  # gone, or in a directory that is not ours any more
            if self.holds():
                self.path.unlink()
        self.unlock()

    def is_free(self) -> bool:
        """Return whether nobody has the lock, this object included.

        Raises OSError when the lock's file cannot be opened.
        """
        try:
            descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return True
        # Shared: several processes that ask at once do not block each other.
        with _one_at_a_time:
            try:
                free = self._lock(descriptor, fcntl.LOCK_SH)
                return free and self._is_current(descriptor)
            finally:
                os.close(descriptor)

    def holder(self) -> str:
        """Return the words that the holder left; empty if they cannot be read."""
        try:
            descriptor = self._open(os.O_RDONLY)
        except OSError:
            return ""
        try:
            return self._text(descriptor).removeprefix(self._before).strip()
        except OSError:
            return ""
        finally:
            os.close(descriptor)

    def _open_locked(self) -> int | None:
        with _one_at_a_time:
            return self._try_to_open_locked()

    def _try_to_open_locked(self) -> int | None:
        for _ in range(_TRIES):
            descriptor = self._open(os.O_RDWR | os.O_CREAT)
            try:
                if not self._lock(descriptor, fcntl.LOCK_EX):
                    # Who only looks whether it is free (`is_free`) shares it for a
                    # moment, and must not be taken for a holder.
                    if not self._lock(descriptor, fcntl.LOCK_SH):
                        os.close(descriptor)
                        return None
                elif self._is_current(descriptor):
                    self._check_content(descriptor)
                    return descriptor
            except BaseException:  # whatever it is, it goes on up
                os.close(descriptor)
                raise
            # Try again: the path names another file by now, or others only looked.
            os.close(descriptor)
        return None

    def _open(self, how: int) -> int:
        """Open the file, if it is a plain one with one name, and no link to one."""
        with suppress(FileNotFoundError):
            self._check(self.path.lstat())  # before: to open a device may change it
        descriptor = os.open(self.path, how | _CAREFULLY, self._mode)
        try:
            self._check(os.fstat(descriptor))
        except BaseException:  # whatever it is, it goes on up
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise NotALock(self.path, "is a symbolic link")
        if not stat.S_ISREG(status.st_mode):
            raise NotALock(self.path, "is not a plain file")
        if status.st_nlink > 1:
            raise NotALock(self.path, f"has {status.st_nlink} names (hard links)")

    def _check_content(self, descriptor: int) -> None:
        text = self._text(descriptor)
        is_empty = not text and os.fstat(descriptor).st_size <= _LONGEST
        if not is_empty and not self._ours.fullmatch(text):
            raise NotALock(
                self.path, "has something else in it than beatd writes there"
            )

    def _text(self, descriptor: int) -> str:
        text = os.pread(descriptor, _LONGEST, 0).decode(errors="replace")
        # A machine that crashed may leave NULs where words were to be.
        return text.strip("\0")

    def _lock(self, descriptor: int, how: int) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the path still names this file: it may have been removed."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def _leave_to_parent(self) -> None:
        if self._descriptor is not None:
            # Closed but not unlocked: unlocking would end the parent's lock as well.
            os.close(self._descriptor)
            self._descriptor = None


def _after_fork_in_child() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.Lock()  # a thread that is not here may have had it
    # A child that kept the descriptor would keep the lock when the parent dies.
    for lock in list(_all):
        lock._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
