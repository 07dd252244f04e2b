"""Options of the command line that stand for settings, and what others default to.

`beatd --help` imports this module, and not the table of settings: the options that it
shows stand here, and rows of the table refer to them.
"""

from dataclasses import dataclass

# Defaults of options that stand for no setting.

BEAT_NODE = "celerybeat@%h"
WORKER_NODE = "celery@%h"
LOG_LEVEL = "WARNING"
HEARTBEAT_INTERVAL = 2.0
"""Seconds between two heartbeats of a worker."""

# Defaults of settings that `beatd --help` names.

SCHEDULE_FILE = "celerybeat-schedule"
SCHEDULER_CLASS = "celery.beat:PersistentScheduler"


@dataclass(frozen=True, slots=True)
class Switch:
    """The option of the command line that stands for a setting.

    What values it takes and what its default is are those of the row.
    """

    names: tuple[str, ...]
    help: str
    """`{default}` in it is the default of the row."""
    metavar: str | None = None
    variable: str | tuple[str, ...] | None = None
    """Variables of the environment, beside `$BEATD_` or `$CELERY_` and its own name."""
    says: bool | None = None
    """The value that a flag stands for; None: the option takes a value."""

    @property
    def name(self) -> str:
        """The name under which click knows its value: that of the first long one."""
        long = next(name for name in self.names if name.startswith("--"))
        return long.removeprefix("--").replace("-", "_")

    def meant_by(self, value: object) -> object:
        """Return the setting that a value of the option means; None if it sets nothing.

        A flag that is not given has the value False.
        """
        if self.says is None:
            return value
        return self.says if value else None


BROKER = Switch(
    ("-b", "--broker"),
    "Broker; wins over the config.",
    metavar="URL",
    variable=("BEATD_BROKER_URL", "BROKER_URL"),
)
RESULT_BACKEND = Switch(
    ("--result-backend",),
    "Result backend; wins over the config.",
    metavar="URL",
    variable="RESULT_BACKEND",
)
SCHEDULE_FILENAME = Switch(
    ("-s", "--schedule-filename", "--schedule"),
    f"Schedule file.  [default: {SCHEDULE_FILE}]",
    metavar="FILE",
)
SCHEDULER = Switch(("--scheduler",), f"{SCHEDULER_CLASS} is ours.", metavar="CLASS")
MAX_INTERVAL = Switch(("--max-interval",), "Longest sleep.", metavar="SECONDS")
HTTP = Switch(
    ("--http",),
    "Answer /livez, /readyz, /metrics over HTTP; a port alone: at 127.0.0.1.",
    metavar="ADDRESS",
)
