"""What tells people of what happens to entries, beside a scheduler."""

from collections.abc import Callable
from functools import partial
from typing import cast

from beatd import results
from beatd.alerts.desk import Desk, Setting
from beatd.background import Faults, Service
from beatd.brokers.base import Broker
from beatd.config.settings import Settings
from beatd.errors import BrokerRefused, BrokerUnavailable
from beatd.event_log import EventLog
from beatd.instant import Span, span_of
from beatd.scheduler.loop import Scheduler
from beatd.scheduler.pauses import LOOK, Pauses
from beatd.schedules.zones import zone_of
from beatd.service.facts import Published
from beatd.service.rereading import Taken

tell = EventLog(__name__)


def desk_of(
    settings: Settings, taken: Taken, scheduler: Scheduler, published: Published
) -> Desk:
    """Return what reads the history of a scheduler, and tells of it."""
    configs = scheduler.takeover.configs
    desk = Desk(
        setting_of(settings, taken),
        # It was made as one of all ports (`wiring/scheduler`).
        cast("Broker", scheduler.broker),
        lambda: scheduler.leadership.term,
        lambda: dict(published.facts.refused),
        lambda name: name in configs.entries or name in configs.keep,
        scheduler.clock,
        scheduler.pulse,
        scheduler.pauses,
    )
    scheduler.have_pages_read(desk)
    return desk


def pauses_of(scheduler: Scheduler) -> Pauses:
    """Have a scheduler go by what is paused while it runs."""
    scheduler.pauses = Pauses(cast("Broker", scheduler.broker))
    return scheduler.pauses


def look_for_pauses(pauses: Pauses, leads: Callable[[], bool]) -> Service:
    """Return a thread that looks for entries that were paused, while we lead."""

    refusals = Faults()

    def look() -> Span:
        try:
            if leads():
                pauses.look()
        except BrokerRefused as error:
            if refusals.meet():
                words = "cannot see which entries are paused or resumed: %s"
                tell.warning("pauses.refused", words, error)
        except BrokerUnavailable:
            pass  # the loop meets a broker that is away, too, and says so
        return LOOK

    return Service(look)


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
