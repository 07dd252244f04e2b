"""What tells people of what happens to entries, beside a scheduler."""

from functools import partial
from typing import cast

from beatd import results
from beatd.alerts.desk import Desk, Setting
from beatd.brokers.base import Broker
from beatd.config.settings import Settings
from beatd.event_log import EventLog
from beatd.instant import span_of
from beatd.scheduler.loop import Scheduler
from beatd.schedules.zones import zone_of
from beatd.service.facts import Published
from beatd.service.rereading import Taken

tell = EventLog(__name__)


def desk_of(
    settings: Settings, taken: Taken, scheduler: Scheduler, published: Published
) -> Desk:
    """Return what reads the history of a scheduler, and tells of it."""
    desk = Desk(
        setting_of(settings, taken),
        # It was made as one of all ports (`wiring/scheduler`).
        cast("Broker", scheduler.broker),
        lambda: scheduler.leadership.term,
        lambda: dict(published.facts.refused),
        scheduler.clock,
        scheduler.pulse,
    )
    scheduler.have_pages_read(desk)
    return desk


def setting_of(settings: Settings, taken: Taken) -> Setting:
    """Return what the alerts of this config go by; `settings` are those of the start.

    How to ask the results is among those.
    """
    return Setting(
        taken.alerts,
        settings.beat_namespace,
        zone_of(taken.zone),
        span_of(settings.beat_alert_timeout),
        {entry.name: entry.offset for entry in taken.entries if entry.offset},
        {
            entry.name: entry.message.route.queue
            for entry in taken.entries
            if taken.alerts and entry.message.route.queue
        },
        partial(results.connect, settings) if settings.result_url else None,
    )


def say_ended(error: BaseException) -> None:
    """Say that nobody is told of anything any more; the scheduler goes on."""
    words = "alerts are told no more, until beatd is started again: %r"
    tell.error("alert.ended", words, error, exc_info=error)
