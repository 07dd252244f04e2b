"""When something is due: what users write in a config module.

`from beatd.schedules import crontab` replaces `from celery.schedules import crontab`.
"""

from beatd.schedules.specs import (
    ScheduleSpec,
    cron,
    crontab,
    every,
    once,
    read,
    rrule,
    solar,
)

__all__ = ["ScheduleSpec", "cron", "crontab", "every", "once", "read", "rrule", "solar"]
