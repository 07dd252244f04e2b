"""Checks of `beatd check` outside of the config: addresses, tasks, the broker."""

import sys
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from beatd.alerts.ways import NotTold, function_named
from beatd.cli.schedule_view import broker_file, line_of, written_in
from beatd.config.faults import raised
from beatd.config.finding import is_celery
from beatd.config.loading import Config, words_for
from beatd.config.settings import (
    BUILTIN_TASKS,
    Place,
    Problem,
    did_you_mean,
    file_of_url,
    mask_url,
    table,
)
from beatd.errors import BrokerRefused, BrokerUnavailable, ConfigError
from beatd.routing import Queue
from beatd.scheduler.file_view import uncertain_in
from beatd.storage.sqlite_file import SCHEDULE_FILE, FileState, look, look_to_write
from beatd.text import counted, quoted
from beatd.timetable.entry import Entry

if TYPE_CHECKING:
    from beatd.brokers.base import Guarded, SendingBroker
    from beatd.brokers.items import Forbidden


def strange_brokers(config: Config) -> list[Problem]:
    """Return a problem for each broker that Celery knows and beatd does not."""
    from beatd import brokers

    settings = config.settings
    urls = dict.fromkeys((*settings.write_urls, *settings.read_urls))
    problems = []
    for url in urls:
        if file_of_url(url):
            continue  # asking would make the file
        try:
            brokers.of_settings(settings, [url]).close()
        except ConfigError as error:
            place = _place_of(config, "broker_url")
            problems += [
                Problem(f"broker_url: {it}", "", place) for it in error.problems
            ]
    return problems


def strange_results(config: Config) -> list[Problem]:
    """Return a problem for a result backend that only Celery's workers write to.

    A worker of beatd's writes to it, too, for the tasks of a Celery app.
    """
    from beatd import results
    from beatd.app import Beatd

    settings = config.settings
    app = config.source.app
    if settings.result_url is None or file_of_url(settings.result_url):
        return []
    if app is not None and not isinstance(app, Beatd):
        return []
    try:
        results.connect(settings).close()
    except ConfigError as error:
        hint = "before Celery's workers that is well; `beatd worker` refuses to start"
        place = _place_of(config, "result_backend")
        return [
            Problem(f"result_backend: {it}", hint, place, warning=True)
            for it in error.problems
        ]
    return []


def _place_of(config: Config, setting: str) -> Place | None:
    """Return where a setting's value is written, in whichever spelling."""
    written = config.source.written.keys() & table()[setting].spellings
    places = (config.source.locate_value(word) for word in written)
    return next(filter(None, places), None)


def function_problems(config: Config) -> list[Problem]:
    """Import the functions that are told of alerts; return what failed."""
    problems = []
    for name in config.alerts.functions:
        try:
            function_named(name)
        except NotTold as error:
            place = _place_of(config, "beat_alerts")
            problems.append(Problem(f"alerts: function {error}", "", place))
    return problems


def import_problems(config: Config) -> list[Problem]:
    """Import the modules of tasks; return what failed, and entries without a task.

    An app imports them in its own way, and only its own tasks count.
    """
    try:
        known = _imported_tasks(config)
    except ConfigError as error:
        return [Problem(f"cannot import {problem}") for problem in error.problems]
    except Exception as error:  # Celery reads the config of an app when it is asked
        return [Problem(f"cannot ask Celery for its tasks: {raised(error, '')}")]
    problems: list[Problem] = []
    for entry in config.entries:
        task = entry.message.task
        if task not in known and task not in BUILTIN_TASKS:
            text = f"entry {entry.name!r}: no task named {task!r} was imported"
            hint = _way_to(task, config, known)
            problems.append(Problem(text, hint, line_of(config, entry.name)))
        elif why := _why_not_called(config, entry):
            text = f"entry {entry.name!r}: {task} does not take its arguments: {why}"
            hint = "args, kwargs and slot_argument have to fit the function"
            problems.append(Problem(text, hint, line_of(config, entry.name)))
    return problems


def _why_not_called(config: Config, entry: Entry) -> str:
    """Return why an imported task does not take an entry's arguments, or nothing.

    The entries of an app are looked at when they are read.
    """
    from beatd.app import Beatd
    from beatd.tasks.current import current_app

    app = current_app()
    if config.source.app is not None or not isinstance(app, Beatd):
        return ""
    task = app.tasks.get(entry.message.task)
    if task is None or entry.message.task in BUILTIN_TASKS:
        return ""
    written = written_in(config, entry.name)
    kwargs = dict(written.get("kwargs") or {})
    default = config.settings.beat_slot_argument
    if (name := written.get("slot_argument", default)) is not None:
        kwargs[name] = ""
    try:
        task.check_arguments(written.get("args") or (), kwargs)
    except TypeError as error:
        return str(error)
    return ""


def _imported_tasks(config: Config) -> set[str]:
    """Import the modules of tasks; return the names of those that a worker would have.

    Without an app, workers of beatd's and of Celery's may be meant. Raises ConfigError.
    """
    from beatd.app import Beatd
    from beatd.tasks import import_modules
    from beatd.tasks.current import current_app

    app: Any = config.source.app
    if isinstance(app, Beatd):
        app.use(config.settings)
        app.import_tasks()
        return set(app.tasks)
    if is_celery(app):
        return set(app.tasks)  # its own loader has imported all when it was read
    import_modules(config.settings.modules)
    ours = current_app()
    if not isinstance(ours, Beatd):
        return _tasks_of_celery()
    ours.use(config.settings)  # as a worker without an app does
    return set(ours.tasks) | _tasks_of_celery()


def _tasks_of_celery() -> set[str]:
    celery = sys.modules.get("celery")
    return set(celery.current_app.tasks) if celery else set()


def _way_to(task: str, config: Config, known: set[str]) -> str:
    """Return what may be done for a task to be found."""
    app = config.source.app
    if not is_celery(app) and task in _tasks_of_celery():
        return "it is a task of Celery's: make it with shared_task of beatd"
    if near := did_you_mean(task, known):
        return near
    if is_celery(app):
        return "name its module in 'include', or let autodiscover_tasks find it"
    return "name its module in 'imports', or use -A"


def entries_elsewhere(config: Config, *, ask: bool) -> list[Problem]:
    """Return a warning for entries that another scheduler of the app keeps.

    RedBeat's are looked for only if the broker is to be asked; then there is one, too,
    for a scheduler whose last runs beatd does not know.
    """
    from beatd.service.wiring import looking

    problems = looking.entries_elsewhere(config, ask=ask)
    if ask and is_celery(config.source.app):
        from beatd.celery_apps.other_schedulers import last_runs_elsewhere

        with suppress(BrokerUnavailable):  # asking it is what says so
            known = looking.ledger_of(config).marks
            problems += last_runs_elsewhere(config, known)
    return problems


def shelves_elsewhere(config: Config) -> list[Problem]:
    """Return a warning for the schedule file of celery beat, if beatd has none yet."""
    from beatd.migrate.shelves import is_shelve

    path = Path(config.settings.beat_schedule_filename)
    if look(path, SCHEDULE_FILE).state is FileState.OURS or not is_shelve(path):
        return []
    text = f"{path} is celery beat's: beatd does not know yet what ran last"
    command = f"beatd import celery {quote(str(path))} {words_for(config)}"
    return [Problem(text, f"take it over: {command}", warning=True)]


def schedule_file_problems(config: Config) -> list[Problem]:
    """Return why this host's schedule file cannot be used, as the start would say it.

    Only where the file of this host is meant: a config may be checked on another one.
    """
    path = Path(config.settings.beat_schedule_filename)
    found = look_to_write(path, SCHEDULE_FILE)
    if found.state is not FileState.REFUSED or shelves_elsewhere(config):
        return []
    hint = "--schedule-filename names another file"
    return [Problem(f"schedule file: {path} {found.problem}", hint)]


def unreached(config: Config) -> list[Problem]:
    """Return a warning for what a Celery app has that beatd does not use."""
    from beatd.celery_apps.out_of_reach import out_of_reach

    app = config.source.app
    return list(out_of_reach(app)) if is_celery(app) else []


def task_problems(config: Config) -> list[Problem]:
    """Return what is wrong with the options of those tasks that are imported."""
    from beatd.app import Beatd
    from beatd.service.wiring.runtime import tasks_of
    from beatd.tasks import problems_of
    from beatd.tasks.current import current_app

    app = config.source.app or current_app()
    if isinstance(app, Beatd) and config.source.app is None:
        app.use(config.settings)
    try:
        tasks = list(tasks_of(app).values())
    except ConfigError as error:
        return [Problem(f"{error.source}: {problem}") for problem in error.problems]
    except Exception as error:  # the code of an app of Celery's, as above
        return [Problem(f"cannot read the tasks of the app: {raised(error, '')}")]
    return [Problem(problem) for task in tasks for problem in problems_of(task)]


UNREACHED = (
    "start it, or name another: broker_url, $BEATD_BROKER_URL_FILE, or --broker URL;"
    " a scheduler and a worker wait for it, and try again about once a second"
)


def ask_broker(config: Config) -> tuple[str, list[Problem]]:
    """Return the answer of the first broker that answers, and problems with others."""
    first, *others = config.settings.write_urls
    answer, problems = _ask_at(config, first)
    for url in others:
        _, found = _ask_at(config, url)
        problems += [replace(one, warning=True) for one in found]
    return answer, problems


def _ask_at(config: Config, url: str) -> tuple[str, list[Problem]]:
    from beatd import brokers
    from beatd.brokers.base import Guarded

    name = mask_url(url)
    forbidden: list[Problem] = []
    if _is_made_later(url):
        return f"{name}: {broker_file(url)}: it is made when it is first used", []
    try:
        broker = brokers.of_settings(config.settings, [url])
        try:
            if isinstance(broker, Guarded):
                forbidden = _forbidden(f"broker {name}", broker, _queues_of(config))
                if any(not one.warning for one in forbidden):
                    return "", forbidden  # nothing else can be asked
            answer = broker.ping()
            risks = broker.risks()
            differs = _difference(config, broker)
            promise = broker.promise
        finally:
            broker.close()
    except ConfigError as error:
        return "", [Problem(f"broker: {problem}") for problem in error.problems]
    except BrokerUnavailable as error:
        text = str(error)
        if name not in text:
            text = f"{name}: {text}"
        # What refuses has its own way out.
        hint = "" if isinstance(error, BrokerRefused) else UNREACHED
        return "", [Problem(f"broker {text}", hint)]
    problems = [Problem(f"broker {name}: {risk}", warning=True) for risk in risks]
    problems += [*forbidden, *differs]
    words = f"{promise.words}{_uncertain(config)}"
    return f"{name}: {answer}; {words}", problems


def ask_results(config: Config) -> list[Problem]:
    """Return what the server of the results forbids, or why it cannot be asked."""
    from beatd import results
    from beatd.brokers.base import Guarded

    url = config.settings.result_url
    if url is None or file_of_url(url):
        return []
    backend = results.connect(config.settings)
    try:
        if isinstance(backend, Guarded):
            return _forbidden(f"results {mask_url(url)}", backend, ())
        return []
    except BrokerUnavailable as error:
        return [Problem(f"results {error}")]
    finally:
        backend.close()


def _queues_of(config: Config) -> list[Queue]:
    """Return the queues of the config, and those that hear events and commands."""
    control = f"{config.settings.control_exchange}.pidbox"
    events = config.settings.event_exchange
    heard = [Queue(events, events, "fanout", "#"), Queue(control, control, "fanout")]
    return [*config.queues, *heard]


def _forbidden(
    name: str, guarded: "Guarded", queues: Collection[Queue]
) -> list[Problem]:
    """Return what our user is forbidden, by the part of beatd that needs it.

    Before a fleet of Celery's workers beatd's own has nothing to do: an error is only
    what the scheduler cannot do without.
    """
    parts: dict[str, list[Forbidden]] = defaultdict(list)
    for one in guarded.forbidden(queues):
        parts[one.part].append(one)
    problems = []
    for part, found in parts.items():
        things = ", ".join(dict.fromkeys(quoted(one.what) for one in found))
        rules = " ".join(quote(one) for one in dict.fromkeys(one.rule for one in found))
        text = f"{name}: its ACL forbids what {part} needs: {things}"
        hint = f"permit it there: ACL SETUSER {quoted(guarded.user)} {rules}"
        problems.append(Problem(text, hint, warning=part != "a scheduler"))
    return problems


def _uncertain(config: Config) -> str:
    """Return what the schedule file says of slots that the broker may have lost."""
    path = Path(config.settings.beat_schedule_filename)
    if not (number := uncertain_in(path)):
        return ""
    return (
        f"; of {counted(number, 'slot')} it is uncertain whether they ran, as the"
        " broker was set back: beatd list --json has them by entry"
    )


def _difference(config: Config, broker: "SendingBroker") -> list[Problem]:
    """Return a problem if the scheduler that leads goes by other entries."""
    from beatd.timetable.imprint import compare, imprint_of, in_words, trace_of

    theirs = broker.announced()
    entries = {entry.name: entry for entry in config.entries}
    own = imprint_of(map(trace_of, config.entries))
    if theirs is None or theirs.digest == own.digest:
        return []
    leader = broker.leader() or "another"
    text = f"the scheduler that leads ({leader}) goes by other entries"
    hint = "if these are two projects, give each a beat_namespace of its own"
    return [Problem(f"{text}: {in_words(compare(entries, theirs))}", hint)]


def _is_made_later(url: str) -> bool:
    """Return whether asking would make a file, which might belong to the wrong user."""
    path = file_of_url(url)
    return path is not None and not path.exists() and path.parent.is_dir()
