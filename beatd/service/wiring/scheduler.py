"""A scheduler of a config, in front of its broker."""

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from beatd import brokers, results
from beatd.background import Service
from beatd.brokers.base import Broadcast, Broker
from beatd.celery_apps.signals import pass_on_beat
from beatd.clock import SystemClock
from beatd.config.finding import is_celery
from beatd.config.loading import Config
from beatd.config.settings import Problem, Settings, file_of_url, mask_url
from beatd.errors import MessageError
from beatd.event_log import EventLog
from beatd.events.event import EventFactory
from beatd.events.sent import TaskSentEvents
from beatd.instant import span_of
from beatd.parts import in_parts
from beatd.results.base import Meta
from beatd.results.ended import EndedRuns
from beatd.results.readable import load_readable
from beatd.scheduler.asked import AskedAside
from beatd.scheduler.bringing import bring
from beatd.scheduler.calls_watch import CallsWatch
from beatd.scheduler.leadership import Leadership
from beatd.scheduler.loop import LONGEST_NAP, EmissionListener, Scheduler
from beatd.scheduler.schedule_file import ScheduleFile
from beatd.scheduler.succession import Succession
from beatd.scheduler.takeover import Takeover
from beatd.service.nodes import has_ended
from beatd.timetable.history import History, HistoryLimits
from beatd.timetable.ledger import LedgerCopy, Mark
from beatd.timetable.timetable import Timetable

tell = EventLog(__name__)

AT_ONCE = 1000
"""Results that are asked for in one request: their values may be large."""


def scheduler_of(config: Config) -> Scheduler:
    """Make the scheduler of a config, in front of its broker.

    Raises ConfigError, and ScheduleFileError for a schedule file that cannot be used.
    """
    settings = config.settings
    clock = SystemClock()
    if is_celery(config.source.app):
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


def ledger_of(config: Config) -> LedgerCopy:
    """Return the broker's ledger, without the lead; an empty one if there is no file.

    Raises ConfigError and BrokerUnavailable.
    """
    broker = broker_to_look_at(config)
    if broker is None:
        return LedgerCopy({}, 0)
    try:
        return broker.read_ledger()
    finally:
        broker.close()


def broker_to_look_at(config: Config) -> Broker | None:
    """Return the broker, not to lead there; None if there is no file of its yet.

    Raises ConfigError.
    """
    url = config.settings.write_urls[0]
    path = file_of_url(url)
    if path is not None and not path.exists():
        return None
    return brokers.of_settings(config.settings, [url])


def history_of(config: Config) -> History:
    """Return the broker's history; an empty one if there is no file.

    Raises ConfigError, BrokerUnavailable, and ValueError for a history that is none.
    """
    broker = broker_to_look_at(config)
    if broker is None:
        return History({})
    try:
        rows, pages = broker.read_history()
    finally:
        broker.close()
    history = History(rows)
    history.fold(pages)
    return history


def metas_of(
    settings: Settings, task_ids: Sequence[str]
) -> tuple[Mapping[str, Meta], Mapping[str, MessageError]]:
    """Return what the results have of these runs, and why some cannot be read.

    Looking makes no file of results. Raises ConfigError for a backend that beatd does
    not read, and ResultUnavailable.
    """
    url = settings.result_url
    path = url and file_of_url(url)
    if url is None or not task_ids or (path and not path.exists()):
        return {}, {}
    metas: dict[str, Meta] = {}
    unreadable: dict[str, MessageError] = {}
    with closing(results.connect(settings)) as backend:
        # A server serves nobody else while it answers.
        for part in in_parts(task_ids, AT_ONCE):
            found, bad = load_readable(backend, part)
            metas |= found
            unreadable |= bad
    return metas, unreadable


def entries_elsewhere(config: Config, *, ask: bool = True) -> list[Problem]:
    """Return a warning for entries that another scheduler of a Celery app keeps.

    RedBeat's are looked for only if the broker is to be asked.
    """
    app = config.source.app
    if not is_celery(app):
        return []
    # Imported here: it brings the client of Redis, which not every broker needs.
    from beatd.celery_apps.other_schedulers import in_django, in_redis

    return [*in_django(config), *(in_redis(config) if ask else ())]


def ask_results_aside(scheduler: Scheduler, wake: Callable[[], object]) -> AskedAside:
    """Have a thread ask the results which runs have ended; `wake` comes after news.

    The thread begins with the first question, and ends by `close`.
    """
    aside = AskedAside(scheduler.ended, wake, scheduler.clock)
    scheduler.ended, scheduler.unanswered = aside.ended, aside.unanswered
    return aside


def watch_calls(scheduler: Scheduler, config: Config) -> Service | None:
    """Return a thread that says which call of a task's code the loop waits for.

    None for a config without an app: no code is called for its entries.
    """
    if config.source.app is None:
        return None
    watch = CallsWatch(lambda: scheduler.making, scheduler.clock)
    return Service(watch.look)


TAKEN_ONCE = (
    *("beat_namespace", "beat_schedule_filename", "beat_lock_timeout"),
    *("beat_max_loop_interval", "beat_lost_writes", "beat_logfile", "beat_pidfile"),
    *("beat_http", "beat_max_late", "beat_history_per_entry", "beat_history_bytes"),
    "beat_alert_timeout",
    *("beat_uid", "beat_gid", "beat_umask", "beat_executable"),
    *("broker_transport_options", "broker_use_ssl", "broker_connection_timeout"),
    *("task_send_sent_event", "event_exchange", "event_serializer"),
    *("result_backend_transport_options", "redis_backend_use_ssl"),
    *("redis_max_connections", "redis_socket_timeout", "redis_socket_connect_timeout"),
    *("result_serializer", "result_accept_content", "accept_content"),
    *("worker_log_format", "worker_log_datefmt", "worker_log_color"),
    *("worker_hijack_root_logger", "worker_redirect_stdouts"),
    "worker_redirect_stdouts_level",
)
"""What a scheduler's process takes from the settings when it begins, beside its
addresses."""


def taken_once(settings: Settings) -> dict[str, object]:
    """Return what a scheduler takes only when it begins, by the settings' names."""
    return {
        "broker_url": settings.write_urls[:1],
        "result_backend": settings.result_url,
        **{name: getattr(settings, name) for name in TAKEN_ONCE},
    }


def needs_restart(began: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Name what differs between what was taken once and what would be now."""
    return [name for name, value in began.items() if now[name] != value]


def _one_broker(settings: Settings) -> Broker:
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
    return brokers.of_settings(settings, [first])


def _warn_of_risks(broker: Broker) -> None:
    """Say what the broker may do to its queues."""
    for risk in broker.risks():
        tell.warning("broker.risk", "broker: %s", risk)


def _listener_of(config: Config, broker: Broker) -> EmissionListener | None:
    if not (config.settings.task_send_sent_event and isinstance(broker, Broadcast)):
        return None
    return TaskSentEvents(broker, EventFactory(config.format.origin, config.settings))


def _ended_by(settings: Settings) -> Callable[[Collection[str]], Collection[str]]:
    """Let results say which runs ended: foreign workers tell the broker nothing."""
    if settings.result_url is None:
        return lambda task_ids: ()
    return EndedRuns(lambda: results.connect(settings)).among
