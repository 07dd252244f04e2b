"""Forms of log lines: for a terminal, a file, the journal; and the loggers of tasks.

The log lines of a task name its run if its module has

    from beatd.logs import get_task_logger

    logger = get_task_logger(__name__)
"""

import logging
import sys
from datetime import datetime

from beatd.event_log import zone
from beatd.tasks import current_request
from beatd.text import indented_lines

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
    """Puts the priority before each line; the journal itself adds the time."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        text = self._plain.format(record)
        return _PRIORITY.get(record.levelno, "<6>") + text


class ColourFormatter(logging.Formatter):
    """Colours the lines of warnings and errors."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        text = self._plain.format(record)
        colour = _COLOUR.get(record.levelno)
        return f"{colour}{text}\x1b[0m" if colour else text
