"""From settings to the objects that do the work: the only composer.

Nobody else calls a constructor that does I/O; tests compose by hand, with fakes.
"""

import logging
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from beatd import brokers
from beatd.brokers.base import Broker
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.errors import ResultUnavailable
from beatd.instant import span_of
from beatd.leadership import Leadership
from beatd.results.base import READY_STATES, ResultBackend
from beatd.schedule_file import ScheduleFile
from beatd.scheduler import LONGEST_NAP, Scheduler
from beatd.settings import Settings
from beatd.timetable import Timetable

logger = logging.getLogger(__name__)


def broker_of(settings: Settings, url: str) -> Broker:
    """Connect to one of the broker's addresses; Redis is asked by the first call."""
    return brokers.connect(
        url,
        namespace=settings.beat_namespace,
        options=settings.broker_transport_options,
        tls=settings.broker_use_ssl,
    )


def scheduler_of(config: Config) -> Scheduler:
    """Make the scheduler of a config, in front of its broker.

    Raises ConfigError, and ScheduleFileError for a schedule file that cannot be used.
    """
    settings = config.settings
    clock = SystemClock()
    file = ScheduleFile(
        Path(settings.beat_schedule_filename),
        namespace=settings.beat_namespace,
        timezone=str(settings.zone),
        clock=clock,
    )
    broker = broker_of(settings, settings.write_urls[0])
    nap = span_of(settings.beat_max_loop_interval) or LONGEST_NAP
    return Scheduler(
        entries={entry.name: entry for entry in config.entries},
        timetable=Timetable(),
        leadership=Leadership(
            broker,
            clock,
            holder=f"{socket.gethostname()} pid {os.getpid()}",
            ttl=span_of(settings.beat_lock_timeout),
        ),
        broker=broker,
        file=file,
        clock=clock,
        namespace=settings.beat_namespace,
        keep=[bad.name for bad in config.bad],
        ended=_ended_by(settings),
        longest_nap=min(nap, LONGEST_NAP),
    )


def _ended_by(settings: Settings) -> Callable[[Collection[str]], Collection[str]]:
    """Let results say which runs ended: foreign workers tell the broker nothing."""
    backend: ResultBackend | None = None

    def ended(task_ids: Collection[str]) -> Collection[str]:
        nonlocal backend
        if settings.result_url is None:
            return ()
        try:
            backend = backend or results_of(settings)
            found = backend.load(list(task_ids))
        except ResultUnavailable as error:
            logger.warning(
                "cannot ask whether runs have ended: %s",
                error,
                extra={"event": "results.lost"},
            )
            return ()
        return [key for key, meta in found.items() if meta.status in READY_STATES]

    return ended
