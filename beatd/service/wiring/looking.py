"""What the broker and the results of a config know, for who neither leads nor works."""

from collections.abc import Mapping, Sequence
from contextlib import closing

from beatd import brokers, results
from beatd.brokers.base import SendingBroker
from beatd.config.finding import is_celery
from beatd.config.loading import Config
from beatd.config.settings import Problem, Settings, file_of_url
from beatd.errors import MessageError
from beatd.parts import in_parts
from beatd.results.base import Meta
from beatd.results.readable import load_readable
from beatd.timetable.history import History
from beatd.timetable.ledger import LedgerCopy

AT_ONCE = 1000
"""Results that are asked for in one request: their values may be large."""


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


def broker_to_look_at(config: Config) -> SendingBroker | None:
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
