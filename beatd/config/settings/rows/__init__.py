"""The table of settings: one row for each, in modules by what they are about.

A row is the name, the kinds of values that it takes, whether it works (`notes.py`), the
default and the meaning; Celery's old name only where it is not the usual one. The
reader, the hints, the docs page and the tests follow it. An option of the command line
that stands for a setting is the `switch` of its row; a command has it by
`@setting(name)`. After a change:

    python -m beatd.config.settings > docs/settings.md
    python -m beatd.cli.worker_options > docs/worker-options.md
"""

from dataclasses import dataclass

from beatd.config.settings.rows.broker import BrokerRows
from beatd.config.settings.rows.results import ResultRows
from beatd.config.settings.rows.scheduler import SchedulerRows
from beatd.config.settings.rows.tasks import TaskRows
from beatd.config.settings.rows.unused import UnusedRows
from beatd.config.settings.rows.worker import WorkerRows


# The fields of the last base come first: what has no effect stands at the end.
@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Rows(UnusedRows, WorkerRows, TaskRows, ResultRows, BrokerRows, SchedulerRows):
    """A field for each setting; other modules use `Settings` of `values.py`."""
