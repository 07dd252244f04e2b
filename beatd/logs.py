"""Forms of log lines: for people, as JSON, for the journal; and the loggers of tasks.

The log lines of a task name its run if its module has

    from beatd.logs import get_task_logger

    logger = get_task_logger(__name__)
"""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from uuid import NAMESPACE_URL, uuid5

from beatd.event_log import zone
from beatd.log_fields import event_of, extras_of, for_journal, for_json, text_of
from beatd.tasks import current_request
from beatd.text import indented_lines


class Form(StrEnum):
    """What the log is made of."""

    TEXT = "text"  # lines for people
    JSON = "json"  # an object a line
    JOURNAL = "journal"  # records with fields, for systemd's journal


LINE = "%(message)s"
TASK_LINE = "%(task_name)s[%(task_id)s]: %(message)s"
BEFORE = "%(asctime)s %(levelname)-7s "
"""The beginning of each line; not in the journal, which has time and level itself."""
STAMP = "%Y-%m-%d %H:%M:%S%:z"

TASKS = logging.getLogger("beatd.task")
"""The parent of the loggers of tasks."""

ABOVE_TASKS = (TASKS, logging.getLogger("celery.task"))
"""The parents of the loggers of tasks: also of Celery's own `get_task_logger`."""

_NO_MODULE = ("", "root", "beatd", TASKS.name)

# sd-daemon(3): a line that begins so carries its priority to the journal.
_PRIORITY = {
    logging.DEBUG: "<7>",
    logging.INFO: "<6>",
    logging.WARNING: "<4>",
    logging.ERROR: "<3>",
    logging.CRITICAL: "<2>",
}

# Colours that colour-blind readers can tell apart; each line names its level, too.
_COLOUR = {
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[1;31m",
    logging.CRITICAL: "\x1b[1;31m",
}


# What tasks log ------------------------------------------------------------------


def get_task_logger(name: str) -> logging.Logger:
    """Return the logger `name`; its lines name the run and the task that log them.

    Their form is `worker_task_log_format`. Raises ValueError for a name that no module
    of yours can have.
    """
    if name in _NO_MODULE:
        raise ValueError(f"expected the __name__ of a module, got {name!r}")
    found = logging.getLogger(name)
    above: logging.Logger | None = found
    while above and above is not TASKS:
        above = above.parent
    if above is None:
        found.parent = TASKS
    return found


class TaskFormatter(logging.Formatter):
    """Fills in `%(task_id)s` and `%(task_name)s`; with ??? where no task runs.

    Times are in the zone of the log (`event_log`). Whatever tasks, messages and clients
    call themselves and say, no record can look like several, and none of it moves a
    terminal's cursor.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = vars(record)
        if run := _running():
            fields["task_id"], fields["task_name"] = run
        else:
            fields.setdefault("task_id", "???")
            fields.setdefault("task_name", "???")
        return indented_lines(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return when it was, by default as Celery's log has it.

        `%:z` in `datefmt` is the offset, `+01:00`.
        """
        moment = datetime.fromtimestamp(record.created, zone())
        if datefmt is None:
            return f"{moment:%Y-%m-%d %H:%M:%S},{moment.microsecond // 1000:03}"
        # Python 3.11 does not know it yet.
        return moment.strftime(datefmt.replace("%:z", f"{moment.isoformat()[-6:]}"))


def _running() -> tuple[str | None, str] | None:
    """Return id and name of the task that runs in this thread, also of a Celery app."""
    if request := current_request():
        return request.id, request.task
    state = sys.modules.get("celery._state")
    task = state.get_current_task() if state else None
    return (task.request.id, task.name) if task and task.request else None


# How lines look --------------------------------------------------------------------


class JournalFormatter(logging.Formatter):
    """Puts the priority before each line; the journal itself adds the time.

    For lines that go to the journal by standard error, where it takes no fields.
    """

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        return priority_of(record) + self._plain.format(record)


class ColourFormatter(logging.Formatter):
    """Colours the lines of warnings and errors."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        text = self._plain.format(record)
        colour = _COLOUR.get(record.levelno)
        return f"{colour}{text}\x1b[0m" if colour else text


# For programs ------------------------------------------------------------------------


class JSONFormatter(logging.Formatter):
    """Makes a record one line of JSON, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, zone())
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": text_of(record.levelname),
            "logger": text_of(record.name),
            "event": event_of(record) or None,
            "message": _words_of(record),
        }
        for name, value in for_json(_extras_of(record)):
            # A field of a task's own never stands for one of the log's.
            line[f"{name}_" if name in line else name] = value
        if fault := _fault_of(record):
            line["exception"] = fault
        line["pid"] = record.process
        # All in ASCII: no other character can end a line, or be lost on its way.
        return json.dumps(line, allow_nan=False)


def journal_fields(
    record: logging.LogRecord, plain: logging.Formatter
) -> Iterator[tuple[str, str]]:
    """Yield what the journal has of a record; `plain` makes the message.

    See systemd.journal-fields(7); beatd's own fields are `BEATD_ENTRY` and the like.
    """
    yield "MESSAGE", plain.format(record)
    yield "PRIORITY", priority_of(record)[1]
    yield "SYSLOG_IDENTIFIER", "beatd"
    yield "CODE_FILE", text_of(record.pathname)
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", text_of(record.funcName)
    yield "BEATD_LOGGER", text_of(record.name)
    if event := event_of(record):
        yield "MESSAGE_ID", message_id(event)
        yield "BEATD_EVENT", event
    for name, value in for_journal(_extras_of(record)):
        yield f"BEATD_{'TASK_ID' if name == 'id' else name.upper()}", value


def message_id(event: str) -> str:
    """Return the MESSAGE_ID of an event: the same in every version of beatd."""
    return uuid5(NAMESPACE_URL, f"beatd:{event}").hex


def priority_of(record: logging.LogRecord) -> str:
    """Return a record's priority as a line begins with it: `<6>`."""
    return _PRIORITY.get(record.levelno, "<6>")


def _extras_of(record: logging.LogRecord) -> dict[str, object]:
    """Return a record's fields, and the run in which a task logs it."""
    if run := _running():
        id, task = run
        return {"task": task, "id": id, **extras_of(record)}
    return extras_of(record)


def _words_of(record: logging.LogRecord) -> str:
    try:
        return text_of(record.getMessage())
    except Exception:  # the arguments do not fit, or their own code fails
        return f"{text_of(record.msg)} {text_of(record.args)}"


def _fault_of(record: logging.LogRecord) -> str:
    """Return the traceback of a record, and where it was logged, if it has these."""
    if not (record.exc_info or record.exc_text or record.stack_info):
        return ""
    bare = {"msg": "", "exc_info": record.exc_info, "exc_text": record.exc_text}
    fault = logging.makeLogRecord({**bare, "stack_info": record.stack_info})
    try:
        return text_of(logging.Formatter("%(message)s").format(fault).strip("\n"))
    except Exception as error:  # an exception whose own code fails
        return f"a traceback that cannot be shown: {type(error).__name__}"
