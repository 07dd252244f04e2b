"""What writes log lines: to a stream, a file, the journal; no failure stops anybody.

Stacks of all threads, when SIGUSR1 asks for them, go to the file as well.
"""

import _socket
import errno
import faulthandler
import fcntl
import logging
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from typing import TextIO

from beatd.background import Faults
from beatd.clock import Clock
from beatd.logs import journal_fields
from beatd.text import counted


class _Careful(logging.StreamHandler[TextIO]):
    """Goes on, and is not silent, when a line cannot be formatted or written.

    A format that cannot be filled in gives way to the plain one: no line is lost. Lines
    that cannot be written are counted: standard error is told, if it is another place,
    and so is whoever reads the next line that can be written.
    """

    _plain: logging.Formatter
    _misfits: Faults
    _unwritten: Faults
    _lost = 0
    """Lines that could not be written since the last one that could."""
    _failed = False

    def take_care(self, plain: logging.Formatter, clock: Clock) -> None:
        """Begin with this formatter, which can format every record that is sound."""
        self._plain = plain
        self._misfits = Faults(clock)
        self._unwritten = Faults(clock)

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        try:
            super().emit(record)
        except OSError:  # the file cannot be opened anew, say
            self.handleError(record)
        if not self._failed:
            self._lost = 0

    def format(self, record: logging.LogRecord) -> str:
        line = self._formatted(record)
        if not self._lost:
            return line
        lost = counted(self._lost, "log line")
        words = f"{lost} before this one could not be written"
        return f"{self._notice(words)}\n{line}"

    def _formatted(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except (LookupError, TypeError, ValueError) as error:
            line = self._plain.format(record)  # or else the record itself is wrong
            if not (number := self._misfits.meet()):
                return line
            words = (
                f"the format of log lines cannot be filled in ({_reason(error)}):"
                f" {number} so far in the plain form"
            )
            return f"{self._notice(words)}\n{line}"

    def _notice(self, words: str) -> str:
        fields = {"msg": words, "levelno": logging.WARNING, "levelname": "WARNING"}
        return self._plain.format(logging.makeLogRecord(fields))

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a line that is lost, and say so in a line, but not each time."""
        error = sys.exc_info()[1]
        self._failed = True
        self._lost += 1
        number = self._unwritten.meet()
        if not number:
            return
        where = f"{record.pathname}:{record.lineno}"
        words = self._notice(
            f"cannot write log lines: {_reason(error)}; {number} lost so far,"
            f" the last one from {where}"
        )
        with suppress(Exception):  # then the next line that can be written says it
            if sys.__stderr__ and self.stream is not sys.__stderr__:
                sys.__stderr__.write(f"{words}\n")
                sys.__stderr__.flush()


def _reason(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


class LogStream(_Careful):
    """A stream that is there already: standard error."""

    def __init__(self, stream: TextIO, plain: logging.Formatter, clock: Clock) -> None:
        super().__init__(stream)
        self.take_care(plain, clock)


class LogLines(LogStream):
    """A stream that several processes write to, none within the line of another.

    A pipe takes a long line in pieces when its reader is slow. A lock of the kernel's
    on the stream, which ends with its process, has the others wait meanwhile.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            descriptor = self.stream.fileno()
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        except (OSError, ValueError):  # no file, or one that cannot be locked
            super().emit(record)
            return
        try:
            super().emit(record)
        finally:
            with suppress(OSError):
                fcntl.lockf(descriptor, fcntl.LOCK_UN)


JOURNAL = "/run/systemd/journal/socket"
"""Where the journal takes records with fields."""

_NAME = re.compile("[A-Z][A-Z0-9_]{0,63}")
"""What the journal takes for the name of a field."""

_SEALS = (
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
)


class LogJournal(LogStream):
    """The journal, with fields; where it takes none, its lines by standard error."""

    def __init__(
        self, stream: TextIO, plain: logging.Formatter, clock: Clock, address: str
    ) -> None:
        """`plain` makes the message; `address` is the journal's socket."""
        super().__init__(stream, plain, clock)
        self._address = address
        # Not that of `socket`, in place of which gevent may have put its own: another
        # greenlet would log in the midst of a record.
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        self._socket = _socket.socket(socket.AF_UNIX, kind)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = journal_fields(record, self._plain)
            known = (pair for pair in fields if _NAME.fullmatch(pair[0]))
            data = b"".join(journal_field(*pair) for pair in known)
            send_to_journal(self._socket, self._address, data)
        except Exception:  # no journal is there, or the record itself is wrong
            super().emit(record)

    def close(self) -> None:
        super().close()
        self._socket.close()


def journal_field(name: str, value: str) -> bytes:
    """Return a field in the journal's native protocol.

    With its length, so that no value can be taken for the beginning of another field.
    """
    data = value.encode(errors="backslashreplace")
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


def send_to_journal(by: _socket.socket, address: str, record: bytes) -> None:
    """Send a record to the journal. Raises OSError.

    One that no datagram takes goes as a sealed file in memory.
    """
    try:
        by.sendto(record, address)
        return
    except OSError as error:
        if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
    memory = os.memfd_create("beatd-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(record)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        rights = (
            socket.SOL_SOCKET,
            socket.SCM_RIGHTS,
            memory.to_bytes(4, sys.byteorder),
        )
        by.sendmsg([b""], [rights], 0, address)
    finally:
        os.close(memory)


class LogFile(_Careful, WatchedFileHandler):
    """The file at a path, opened anew when it was rotated; stacks go there as well."""

    def __init__(self, path: str, plain: logging.Formatter, clock: Clock) -> None:
        self.take_care(plain, clock)
        WatchedFileHandler.__init__(
            self, path, encoding="utf-8", errors="backslashreplace"
        )

    def handleError(self, record: logging.LogRecord) -> None:
        super().handleError(record)
        # What is left in the buffer would be written later, in pieces.
        stream, self.stream = self.stream, None  # opened by the next line
        with suppress(OSError, ValueError):
            if stream:
                stream.close()

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        # A descriptor of its own: this one is closed before the file is opened anew.
        dump_stacks_to(os.dup(stream.fileno()))
        return stream


_stacks = 2


def stacks() -> int:
    """Return the descriptor to which stacks are written."""
    return _stacks


def dump_stacks_to(descriptor: int) -> None:
    """Have SIGUSR1 write there what all threads are at, and fatal faults as well.

    The descriptor is left to this function, unless it is standard error.
    """
    global _stacks
    before, _stacks = _stacks, descriptor
    faulthandler.enable(_stacks)
    faulthandler.register(signal.SIGUSR1, _stacks)
    if before not in (2, _stacks):
        os.close(before)
