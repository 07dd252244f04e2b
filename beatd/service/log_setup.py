"""Where the log of a node goes: standard error, a file, the journal.

Stacks of all threads, when SIGUSR1 asks for them, go to the same place.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from beatd import signals
from beatd.clock import Clock, SystemClock
from beatd.errors import BeatdError, ConfigError
from beatd.logs import (
    ABOVE_TASKS,
    BEFORE,
    LINE,
    STAMP,
    TASK_LINE,
    ColourFormatter,
    Form,
    JournalFormatter,
    JSONFormatter,
    TaskFormatter,
)
from beatd.pools.prefork import places
from beatd.service.log_handlers import (
    JOURNAL,
    LogFile,
    LogJournal,
    LogLines,
    LogStream,
    dump_stacks_to,
    stacks,
)
from beatd.service.nodes import is_of_one_process, path_of
from beatd.storage.folders import why_not


@dataclass(frozen=True, slots=True)
class Log:
    """Where the log of a node goes, and how its lines look; None: as it suits."""

    node: str
    level: int = logging.WARNING
    form: Form | None = None
    """None: the journal, if standard error goes there, else text."""
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
    journal: str = JOURNAL
    """The journal's socket."""

    def begin(self) -> None:
        """Have warnings go to standard error in the form of the log until `set_up`.

        Modules of the user's that set up a log of their own find none in their way.
        Raises ConfigError.
        """
        handler = self._handler(None, LINE, None)
        handler.setLevel(logging.WARNING)
        logging.lastResort = handler
        if isinstance(handler, LogLines):
            sys.excepthook = lambda kind, error, trace: log_failure(error)
            threading.excepthook = _log_end_of_thread

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
        dump_stacks_to(stacks())
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
            if isinstance(handler, LogFile | LogJournal):  # others hold nothing open
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
        form = self._form(line)
        if form is Form.JOURNAL:
            return self._to_journal(usual)
        is_json, path = form is Form.JSON, self._path()
        plain = JSONFormatter() if is_json else TaskFormatter(BEFORE + usual, STAMP)
        handler: logging.Handler
        if path is None:
            kind = LogLines if is_json else LogStream
            handler = kind(sys.stderr, plain, self.clock)
        else:
            try:
                handler = LogFile(path, plain, self.clock)
            except OSError as error:
                problem = f"--logfile: {why_not(Path(path), error)}"
                raise ConfigError(path, [problem]) from error
        handler.setFormatter(plain if is_json else self._text(line, usual, date))
        return handler

    def _form(self, line: str | None) -> Form:
        """Return the form of lines that have this format in the settings."""
        if self.form is not None:
            return self.form
        is_plain = line is None and self.file is None
        return Form.JOURNAL if is_plain and _is_journal(sys.stderr) else Form.TEXT

    def _to_journal(self, usual: str) -> logging.Handler:
        if self.form is Form.JOURNAL:
            if self.file:
                problem = f"the journal is no file: leave out --logfile {self.file}"
                raise ConfigError("--log-format journal", [problem])
            if not Path(self.journal).is_socket():
                problem = f"no journal of systemd's listens at {self.journal}"
                raise ConfigError("--log-format journal", [problem])
        plain = TaskFormatter(usual)
        handler = LogJournal(sys.stderr, plain, self.clock, self.journal)
        handler.setFormatter(JournalFormatter(plain))
        return handler

    def _text(
        self, line: str | None, usual: str, date: str | None
    ) -> logging.Formatter:
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


def _log_end_of_thread(args: threading.ExceptHookArgs) -> None:
    # As Python's own hook has it: a thread may end itself by sys.exit().
    if args.exc_type is not SystemExit:
        log_failure(args.exc_value)


def log_failure(error: BaseException | None) -> bool:
    """Log to standard error why this process, or a thread, ends, if JSON goes there.

    Return whether it does: else people are told in words of their own.
    """
    handler = logging.lastResort
    if error is None or not isinstance(handler, LogLines):
        return False
    is_foreseen = isinstance(error, BeatdError)
    words = str(error) if is_foreseen else f"ended by an error: {error!r}"
    trace = None if is_foreseen else (type(error), error, error.__traceback__)
    about = {"name": __name__, "event": "failed", "msg": words, "exc_info": trace}
    level = {"levelno": logging.CRITICAL, "levelname": "CRITICAL"}
    handler.handle(logging.makeLogRecord(about | level))
    return True


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
