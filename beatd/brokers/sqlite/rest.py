"""Where the thread that takes waits for messages: how it is woken, and how often it
looks by itself."""

import os
import select
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from beatd.instant import SECOND, Span
from beatd.storage.file_writes import FileWrites


class Pace(NamedTuple):
    """Seconds between two looks: they grow by this factor while nothing happens."""

    first: float
    growth: float
    longest: float


TOLD = Pace(0.0005, 1.5, 0.25)
"""Where the kernel tells of writes. It does so when they begin: what is written can be
read only once it is synced. So the next looks come soon, in proportion to how long ago
the last write was. The longest is for what the kernel does not tell."""

UNTOLD = Pace(0.004, 1.005, 0.02)
"""Where it does not: short for some seconds after each message."""


_READ = 1 << 16
"""Bytes that are read at once; what is left rings again."""


class Rest:
    """Has one thread wait until another one calls it, or a file is written.

    All but `wait` may be called from any thread.
    """

    def __init__(self, wal: Path, closed: threading.Event, told: Pace = TOLD) -> None:
        """`wal` is the file that is written first; `closed` ends each pause."""
        self._told = told
        self._wal = wal
        self._closed = closed
        self._pace = UNTOLD
        self._nap = UNTOLD.first
        self._is_waiting = self._is_interrupted = False
        self._ring: _Ring | None = None

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Let the thread be called in here; it has to look before it waits."""
        if self._ring is None or self._ring.pid != os.getpid():
            self._ring = _Ring()
        pace = self._told if self._ring.writes.watch(self._wal) else UNTOLD
        if pace is not self._pace:
            self._pace, self._nap = pace, pace.first
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False

    def wait(self, longest: Span) -> bool:
        """Return True when it is time to look again, and False after `interrupt`.

        Only in `begun`.
        """
        ring = self._ring or _Ring()  # none is there once the file is closed
        nap = min(self._nap, longest / SECOND)
        self._nap = min(self._nap * self._pace.growth, self._pace.longest)
        if self._is_interrupted:
            pass
        elif nap <= TOLD.first:  # without listening: writes may come without end
            self._closed.wait(nap)
        elif ring.wait(nap):
            self.look_soon()
        was_interrupted, self._is_interrupted = self._is_interrupted, False
        return not was_interrupted

    def look_soon(self) -> None:
        """Look often for a while: something has happened."""
        self._nap = self._pace.first

    def call(self) -> None:
        """Have the thread look, if it waits."""
        if self._is_waiting and (ring := self._ring):
            ring.ring()

    def interrupt(self) -> None:
        """End the present wait, or the next one."""
        self._is_interrupted = True
        if ring := self._ring:
            ring.ring()

    def close(self) -> None:
        """Let go of the descriptors, once no thread waits by them."""
        self._ring = None


class _Ring:
    """Wakes one thread: by a byte in a pipe, or by writes to a file.

    A forked child makes its own, and with this one closes only its own descriptors.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.writes = FileWrites()
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it is full: it rings already
            os.write(self._in, b".")

    def wait(self, timeout: float) -> bool:
        """Return whether it rang, within so many seconds."""
        rang = _readable([self._out, *self.writes.descriptors], timeout)
        for descriptor in rang:
            os.read(descriptor, _READ)
        return bool(rang)

    def __del__(self) -> None:
        self.writes.close()
        os.close(self._out)
        os.close(self._in)


def _readable(descriptors: Sequence[int], timeout: float) -> Sequence[int]:
    """Return those that can be read, once there are any, or after so many seconds.

    By the functions that gevent and eventlet replace: eventlet has no poll.
    """
    if not hasattr(select, "poll"):
        return select.select(descriptors, [], [], timeout)[0]
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(timeout * 1000)]
