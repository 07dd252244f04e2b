"""Logs what tasks print to standard output and error, line by line."""

import io
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, TextIO, cast

from beatd import greenlets
from beatd.event_log import EventLog

tell = EventLog("beatd.redirected")

LONGEST_LINE = 10_000
"""Characters that wait for the end of their line; a longer line is logged in pieces."""


def redirect(level: int) -> None:
    """From now on, log at this level all that this process prints."""
    sys.stdout = _logged(sys.stdout, level)
    sys.stderr = _logged(sys.stderr, level)


def restore() -> None:
    """Undo `redirect`, if it was called."""
    flush()
    sys.stdout = _real(sys.stdout)
    sys.stderr = _real(sys.stderr)


def flush() -> None:
    """Log what this thread has printed: a task ends, and perhaps its process.

    Never raises, whatever a task has done to the streams.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a task may have put anything there
            stream.flush()


def _logged(stream: TextIO, level: int) -> TextIO:
    if stream is None:  # closed before Python began: prints are lost
        return stream
    return cast(TextIO, LoggedStream(stream, level))


def _real(stream: TextIO) -> TextIO:
    return stream.real if isinstance(stream, LoggedStream) else stream


class LoggedStream(io.TextIOBase):
    """Stands for a stream of this process: each line written to it becomes a record.

    A line belongs to the thread, or greenlet, that writes it: no other text gets into
    it. It is logged when it ends, is flushed, or grows too long. Text that is written
    while a record is being handled comes from a log that fails, and goes to the real
    stream. The stream cannot be closed: all code of the process shares it.
    """

    def __init__(self, real: TextIO, level: int) -> None:
        self.real = real
        self._level = level
        self._begun: dict[int, tuple[str, Callable[[], bool]]] = {}
        """Lines without an end, by thread; and whether that thread is still there."""
        self._logging: set[int] = set()
        """Threads that are logging a line now."""

    @property
    def encoding(self) -> str:  # type: ignore[override] # typeshed: a variable
        return self.real.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override] # typeshed: a variable
        return self.real.errors

    @property
    def buffer(self) -> BinaryIO:
        """Return the real stream's buffer: bytes are not logged."""
        return self.real.buffer

    def fileno(self) -> int:
        """Return the real stream's descriptor, for programs that a task starts."""
        return self.real.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        me = threading.get_ident()
        if me in self._logging:
            with suppress(OSError, ValueError):
                self.real.write(text)
            return len(text)
        for piece in _pieces(text):
            line = self._taken(me) + piece
            if line.endswith("\n") or len(line) >= LONGEST_LINE:
                self._log(me, line)
            else:
                self._begun[me] = line, _liveness()
        return len(text)

    def flush(self) -> None:
        """Log the line that this thread began, and those of threads that have ended."""
        me = threading.get_ident()
        if me in self._logging:
            with suppress(OSError, ValueError):
                self.real.flush()
            return
        self._log(me, self._taken(me))
        for one, (_, is_there) in [*self._begun.items()]:
            if not is_there():
                self._log(me, self._taken(one))

    def close(self) -> None:
        self.flush()

    def _taken(self, one: int) -> str:
        line, _ = self._begun.pop(one, ("", None))
        return line

    def _log(self, me: int, line: str) -> None:
        # Of a line that is written over (a progress bar), only the last state.
        shown = line.rstrip("\r\n").rpartition("\r")[2]
        if not shown:
            return
        self._logging.add(me)
        try:
            tell.log(self._level, "printed", "%s", shown)
        finally:
            self._logging.discard(me)


def _liveness() -> Callable[[], bool]:
    """Return a function: is this thread, or greenlet, still there?"""
    kind = greenlets.patched()
    if kind is None:
        return threading.current_thread().is_alive
    # Thread objects do not tell: they list no greenlets, or call all of them alive.
    greenlet = weakref.ref(kind.current())

    def is_there() -> bool:
        one = greenlet()
        return one is not None and not one.dead

    return is_there


def _pieces(text: str) -> Iterator[str]:
    """Cut a text behind each line's end, and where a line is too long."""
    start = 0
    while start < len(text):
        longest = start + LONGEST_LINE
        end = text.find("\n", start, longest) + 1 or longest
        yield text[start:end]
        start = end
