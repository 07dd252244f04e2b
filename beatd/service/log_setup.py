"""Where the log of a node goes: standard error, a file, the journal.

Stacks of all threads, when SIGUSR1 asks for them, go to the same place.
"""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TextIO

from beatd import signals
from beatd.background import Faults
from beatd.clock import Clock, SystemClock
from beatd.errors import ConfigError
from beatd.logs import (
    ABOVE_TASKS,
    BEFORE,
    LINE,
    STAMP,
    TASK_LINE,
    ColourFormatter,
    JournalFormatter,
    TaskFormatter,
)
from beatd.pools.prefork import places
from beatd.service.nodes import is_of_one_process, path_of
from beatd.storage.folders import why_not


@dataclass(frozen=True, slots=True)
class Log:
    """Where the log of a node goes, and how its lines look; None: as it suits."""

    node: str
    level: int = logging.WARNING
    file: str | None = None
    """As in nodes.py; None: standard error."""
    line: str | None = None
    date: str | None = None
    task_line: str | None = None
    task_date: str | None = None
    colour: bool | None = None
    hijack: bool = True
    """Whether handlers that the root logger has already give way."""
    clock: Clock = field(default_factory=SystemClock)

    def set_up(self) -> bool:
        """Have the records of this process go there; False where others see to it.

        These are whoever is connected to the signal `setup_logging`. Raises ConfigError
        for a file that cannot be opened, a format that is none, and when they raise.
        """
        if self._others_set_up():
            return False
        self._make_room()
        root = logging.getLogger()
        self._configure([root], self.line, LINE, self.date)
        self._tell("after_setup_logger", [root, root], self.line or LINE)
        self._configure(ABOVE_TASKS, self.task_line, TASK_LINE, self.task_date)
        for logger in ABOVE_TASKS:
            logger.propagate = False
        self._tell("after_setup_task_logger", ABOVE_TASKS, self.task_line or TASK_LINE)
        logging.captureWarnings(True)
        return True

    def begin_child(self) -> None:
        """Set up what each process of a pool has alone; nothing in the main process."""
        if not places.here():
            return
        # It was told to die of the signal, and faulthandler does not know.
        faulthandler.unregister(signal.SIGUSR1)
        dump_stacks_to(_stacks)
        if self.file and is_of_one_process(self.file):
            self.set_up()

    def _path(self) -> str | None:
        return path_of(self.file, self.node, places.here()) if self.file else None

    def _make_room(self) -> None:
        for logger in (logging.getLogger(), *ABOVE_TASKS):
            for handler in logger.handlers[:]:
                if self.hijack or handler in _ours:
                    logger.removeHandler(handler)
        for handler in _ours:
            if isinstance(handler, LogFile):  # others write where all may write
                handler.close()
        _ours.clear()

    def _configure(
        self,
        loggers: Sequence[logging.Logger],
        line: str | None,
        usual: str,
        date: str | None,
    ) -> None:
        """Set the level of loggers, and one handler for those that have none."""
        for logger in loggers:
            logger.setLevel(self.level)
        bare = [logger for logger in loggers if _is_bare(logger)]
        if bare:
            handler = self._handler(line, usual, date)
            _ours.append(handler)
            for logger in bare:
                logger.addHandler(handler)

    def _handler(
        self, line: str | None, usual: str, date: str | None
    ) -> logging.Handler:
        path = self._path()
        plain = TaskFormatter(BEFORE + usual, STAMP)
        try:
            handler: logging.Handler
            if path:
                handler = LogFile(path, plain, self.clock)
            else:
                handler = LogStream(sys.stderr, plain, self.clock)
        except OSError as error:
            problem = f"--logfile: {why_not(Path(path), error) if path else error}"
            raise ConfigError(str(path), [problem]) from error
        handler.setFormatter(self._formatter(line, usual, date))
        return handler

    def _formatter(
        self, line: str | None, usual: str, date: str | None
    ) -> logging.Formatter:
        if line is None and self.file is None and _is_journal(sys.stderr):
            return JournalFormatter(TaskFormatter(usual))
        # A format of Celery's comes with milliseconds, if nobody says otherwise.
        stamp = STAMP if line is None else None
        try:
            plain = TaskFormatter(line or BEFORE + usual, date or stamp)
        except ValueError as error:
            raise ConfigError(f"log format {line!r}", [str(error)]) from error
        return ColourFormatter(plain) if self._has_colour() else plain

    def _has_colour(self) -> bool:
        return not self.file and self.colour is not False and wants_colour(sys.stderr)

    # Whoever else has a say: receivers of our signals, and of Celery's.

    def _others_set_up(self) -> bool:
        answers = self._tell("setup_logging", (), self.line or BEFORE + LINE)
        for answer in answers:
            if isinstance(answer, Exception):
                problem = f"a function that is connected to it raised {answer!r}"
                raise ConfigError("setup_logging", [problem]) from answer
        return bool(answers)

    def _tell(
        self, name: str, loggers: Sequence[logging.Logger], line: str
    ) -> list[object]:
        """Send a signal, to Celery's receivers with a logger of Celery's."""
        fields = {
            "loglevel": self.level,
            "logfile": self._path(),
            "format": line,
            "colorize": self._has_colour(),
        }
        ours, theirs = (
            ({"logger": logger} for logger in loggers) if loggers else ({}, {})
        )
        answers: list[object] = [*getattr(signals, name).send(**ours, **fields)]
        if celery := sys.modules.get("celery.signals"):
            sent = getattr(celery, name).send(sender=None, **theirs, **fields)
            answers += [answer for _, answer in sent]
        return answers


_ours: list[logging.Handler] = []
"""The handlers that `Log.set_up` added."""


def _is_bare(logger: logging.Logger) -> bool:
    return all(isinstance(one, logging.NullHandler) for one in logger.handlers)


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
        words = f"{self._lost} log lines before this one could not be written"
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


def log_before_config() -> None:
    """Have warnings shown as those of the log, until the config says where that is.

    Modules of the user's that set up a log of their own find none in their way.
    """
    plain = TaskFormatter(BEFORE + LINE, STAMP)
    handler = LogStream(sys.stderr, plain, SystemClock())
    handler.setFormatter(plain)
    handler.setLevel(logging.WARNING)
    logging.lastResort = handler


_stacks = 2


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


def wants_colour(stream: TextIO) -> bool:
    """Return whether colour will be seen on the stream, by the common conventions."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_journal(stream: TextIO) -> bool:
    """Return whether the stream is the one that systemd connected to the journal."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
