"""A scheduler of a config, in front of its broker."""

import os
import socket
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from beatd import brokers, results
from beatd.background import Service
from beatd.brokers.base import Broadcast, SendingBroker
from beatd.brokers.items import Promise
from beatd.clock import SystemClock
from beatd.config.finding import is_celery
from beatd.config.loading import Config
from beatd.config.settings import Settings, mask_url
from beatd.event_log import EventLog
from beatd.events.event import EventFactory
from beatd.events.sent import TaskSentEvents
from beatd.instant import span_of
from beatd.results.ended import EndedRuns
from beatd.scheduler.asked import AskedAside
from beatd.scheduler.bringing import bring
from beatd.scheduler.calls_watch import CallsWatch
from beatd.scheduler.file_writer import FileWriter
from beatd.scheduler.leadership import Leadership
from beatd.scheduler.loop import LONGEST_NAP, EmissionListener, Scheduler
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.scheduler.succession import Succession
from beatd.scheduler.takeover import Takeover
from beatd.service.nodes import has_ended
from beatd.timetable.history import HistoryLimits
from beatd.timetable.ledger import Mark
from beatd.timetable.timetable import Timetable

tell = EventLog(__name__)


def scheduler_of(config: Config) -> Scheduler:
    """Make the scheduler of a config, in front of its broker.

    Raises ConfigError, and ScheduleFileError for a schedule file that cannot be used.
    """
    settings = config.settings
    clock = SystemClock()
    if is_celery(config.source.app):
        # Imported here: it brings a part of the worker.
        from beatd.celery_apps.signals import pass_on_beat

        pass_on_beat(config.source.app, settings.beat_schedule_filename)
    file = ScheduleFile(
        Path(settings.beat_schedule_filename),
        namespace=settings.beat_namespace,
        timezone=str(settings.zone),
        clock=clock,
    )
    broker = _one_broker(settings)
    nap = span_of(settings.beat_max_loop_interval) or LONGEST_NAP
    timetable = Timetable()
    leadership = Leadership(
        broker,
        clock,
        holder=f"{socket.gethostname()} pid {os.getpid()}",
        ttl=span_of(settings.beat_lock_timeout),
    )
    takeover = Takeover(
        Succession(
            entries={entry.name: entry for entry in config.entries},
            timetable=timetable,
            keep=[bad.name for bad in config.bad],
            queues=config.queues,
        ),
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        declare=broker.declare,
        on_declared=partial(_warn_of_risks, broker),
        resend=settings.beat_lost_writes == "resend",
        history=HistoryLimits(
            settings.beat_history_per_entry, settings.beat_history_bytes
        ),
    )
    return Scheduler(
        takeover=takeover,
        timetable=timetable,
        leadership=leadership,
        broker=broker,
        file=file,
        clock=clock,
        namespace=settings.beat_namespace,
        ended=_ended_by(settings),
        result_ttl=settings.result_ttl,
        listener=_listener_of(config, broker),
        has_ended=has_ended,
        longest_nap=min(nap, LONGEST_NAP),
    )


def bring_marks(
    config: Config, marks: Mapping[str, Mark], on_wait: Callable[[], object]
) -> str:
    """Have these marks of another scheduler in the config's ledger: see `bring`.

    Raises ConfigError, ScheduleFileError and BrokerUnavailable.
    """
    return bring(scheduler_of(config), marks, on_wait)


def ask_results_aside(scheduler: Scheduler, wake: Callable[[], object]) -> AskedAside:
    """Have a thread ask the results which runs have ended; `wake` comes after news.

    The thread begins with the first question, and ends by `close`.
    """
    aside = AskedAside(scheduler.ended, wake, scheduler.clock)
    scheduler.ended, scheduler.unanswered = aside.ended, aside.unanswered
    return aside


def write_aside(scheduler: Scheduler) -> Service:
    """Return what writes the schedule file, so that the loop need not."""
    writer = FileWriter(scheduler.file)
    scheduler.write_file = writer.ask
    return writer.service


def watch_calls(scheduler: Scheduler, config: Config) -> Service | None:
    """Return a thread that says which call of a task's code the loop waits for.

    None for a config without an app: no code is called for its entries.
    """
    if config.source.app is None:
        return None
    watch = CallsWatch(lambda: scheduler.making, scheduler.clock)
    return Service(watch.look)


def _one_broker(settings: Settings) -> SendingBroker:
    """Return the broker at the first address, the only one that a scheduler uses.

    That each slot is queued once takes one ledger, and one leader: two schedulers may
    reach different addresses.
    """
    first, *others = settings.write_urls
    if others:
        tell.warning(
            "broker.addresses",
            "the scheduler uses only %s, the first of %d broker addresses",
            mask_url(first),
            1 + len(others),
        )
    broker = brokers.of_settings(settings, [first])
    if broker.promise is Promise.AT_LEAST_ONCE:
        tell.warning("broker.promise", "%s: %s", mask_url(first), broker.promise.words)
    return broker


def _warn_of_risks(broker: SendingBroker) -> None:
    """Say what the broker may do to its queues."""
    for risk in broker.risks():
        tell.warning("broker.risk", "broker: %s", risk)


def _listener_of(config: Config, broker: SendingBroker) -> EmissionListener | None:
    if not (config.settings.task_send_sent_event and isinstance(broker, Broadcast)):
        return None
    return TaskSentEvents(broker, EventFactory(config.format.origin, config.settings))


def _ended_by(settings: Settings) -> Callable[[Collection[str]], Collection[str]]:
    """Let results say which runs ended: foreign workers tell the broker nothing."""
    if settings.result_url is None:
        return lambda task_ids: ()
    return EndedRuns(lambda: results.connect(settings)).among
