"""What a config says, as settings and entries, and all that is wrong with it."""

import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from beatd.bounds import seconds_of
from beatd.config import apps, places, settings
from beatd.config.alert_rules import NO_ALERTS, AlertRules, rules_of, unreadable
from beatd.config.app_calls import AppCalls
from beatd.config.calls import Calls, PlainCalls
from beatd.config.celery_calls import CeleryCalls
from beatd.config.entries import EntryReader
from beatd.config.entry_line import BadEntry
from beatd.config.faults import Unreadable, raised, raised_by_reading
from beatd.config.finding import App, is_celery
from beatd.config.settings import Place, Problem, Settings, mask_url
from beatd.config.source import Source
from beatd.config.tls import is_unproven
from beatd.errors import ConfigError, MessageError
from beatd.message import MessageFormat
from beatd.message.codec import content_types
from beatd.routing import Queue, Router, queue_of
from beatd.text import is_encodable, quoted
from beatd.timetable.entry import Entry


@dataclass(frozen=True, slots=True)
class Config:
    """Settings, and the entries: those that can be used, and the bad ones."""

    source: Source
    settings: Settings
    entries: list[Entry]
    bad: list[BadEntry]
    warnings: list[Problem]
    unused: list[str]
    """The settings that have no effect here, as they are spelled."""
    format: MessageFormat
    router: Router
    queues: list[Queue]
    """Those that a scheduler declares."""
    given: Collection[str]
    """The settings that were set, by their new names."""
    alerts: AlertRules = NO_ALERTS

    @property
    def entry_names(self) -> Set[str]:
        """The names of all entries, usable or not."""
        return {one.name for some in (self.entries, self.bad) for one in some}

    @property
    def queue_names(self) -> list[str]:
        """The queues that are declared, and those to which entries send."""
        names = dict.fromkeys(queue.name for queue in self.queues)
        for entry in self.entries:
            names.setdefault(entry.message.route.queue)
        names.pop("", None)  # of a fan-out
        return [*names]


@dataclass(frozen=True, slots=True)
class ConfigReport:
    """A config and all that is wrong with it, whether it can be used or not."""

    name: str
    """For people: the module, file or app."""
    errors: list[Problem]
    """Why the config as a whole cannot be used."""
    config: Config | None
    """What could be read, with defaults for wrong settings; None if nothing could."""

    @property
    def problems(self) -> list[Problem]:
        """Errors, problems of entries, and warnings, in the order of the text."""
        found = list(self.errors)
        if self.config is not None:
            found += _problems_of(self.config.bad)
            found += self.config.warnings
        return _in_order(found)


def _problems_of(bad: Iterable[BadEntry]) -> list[Problem]:
    return [problem for entry in bad for problem in entry.problems]


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda one: one.place.line if one.place else 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which config is meant, by the command line and the environment."""

    config: str | None = None
    """A module or a file; None: $BEATD_CONFIG, else celeryconfig."""
    app: str | None = None
    """An app (`proj`, `proj:app`) that has the config; wins over `config`."""
    environ: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)
    """The working directory."""
    command_line: Mapping[str, object] = field(default_factory=dict)
    """Settings given on the command line, by their new names."""
    worker: str = ""
    """The node's name, if it is a worker that the config is read for."""
    unjudged: Collection[str] = ()
    """Settings that do not matter to what the config is read for."""
    entries_only: bool = False
    """Whether nobody looks later at what is written of the entries."""

    def read(self) -> Source:
        """Execute the config, afresh at each call."""
        if self.app:
            return apps.of_app(self.app, self.folder, self.worker)
        return places.of_config(self.config, self.environ, self.folder)


def words_for(config: Config) -> str:
    """Return the words of a command line that name this config."""
    option = "--config" if config.source.app is None else "-A"
    return f"{option} {quote(config.source.name)}"


def load(wanted: Wanted, *, strict: bool = False) -> Config:
    """Return the config; raise ConfigError, with all that is wrong, if it is unusable.

    Entries that cannot be used are left out and listed; `strict` refuses them too.
    """
    report = examine(wanted)
    errors, config = list(report.errors), report.config
    if config is not None and strict:
        errors += _problems_of(config.bad)
    if errors or config is None:
        raise ConfigError(report.name, [str(error) for error in _in_order(errors)])
    return config


def examine(wanted: Wanted) -> ConfigReport:
    """Return the config that is wanted, and everything that is wrong with it."""
    try:
        found = wanted.read()
    except Unreadable as error:
        return ConfigReport(error.source, [error.problem], None)
    except (Exception, SystemExit) as error:  # foreign code, in an app say
        name = wanted.app or wanted.config or "the config"
        return ConfigReport(name, [raised(error, "")], None)
    try:
        return examine_source(
            found,
            wanted.environ,
            wanted.command_line,
            wanted.unjudged,
            entries_only=wanted.entries_only,
        )
    except Exception as error:  # foreign code: the values are the user's objects
        return ConfigReport(found.name, [Problem(raised_by_reading(error))], None)


def examine_source(
    found: Source,
    environ: Mapping[str, str] | None = None,
    command_line: Mapping[str, object] | None = None,
    unjudged: Collection[str] = (),
    *,
    entries_only: bool = False,
) -> ConfigReport:
    """Return the config in a source, and everything that is wrong with it."""
    reading = settings.read(
        found.written,
        environ=environ,
        command_line=command_line,
        locate=found.locate_value,
        locate_name=found.locate,
        unjudged=unjudged,
    )
    chosen = reading.settings
    errors = [problem for problem in reading.problems if not problem.warning]
    warnings = [problem for problem in reading.problems if problem.warning]
    # What Celery lets pass keeps nothing from starting: `beatd check` is stricter.
    warnings.extend(replace(problem, warning=True) for problem in found.problems)
    errors.extend(_nameless_zone(chosen, found))
    router = _try_router(chosen, found, errors)
    format = message_format(chosen)
    calls = _calls_of(found.app, chosen, format, router, warnings)
    reader = EntryReader(chosen, calls, found)
    entries: list[Entry] = []
    bad: list[BadEntry] = []
    schedule = chosen.beat_schedule
    for name, written in _spent(found, schedule) if entries_only else schedule.items():
        entry = reader.read(name, written)
        if isinstance(entry, BadEntry):
            bad.append(entry)
        else:
            entries.append(entry)
    warnings.extend(_repeated(found))
    warnings.extend(_accepted(chosen, found))
    warnings.extend(_unproven(chosen, found))
    if entries or bad:
        warnings.extend(_eager(chosen, found))
    rules = rules_of(chosen, reader.alerts, reader.pauses)
    for name, problem in unreadable(rules, chosen):
        placed = replace(problem, place=_place_of(name, found))
        (warnings if problem.warning else errors).append(placed)
    queues = [*router.queues.values(), *calls.queues()]
    config = Config(
        found,
        chosen,
        entries,
        bad,
        warnings,
        reading.unused,
        format,
        router,
        queues,
        reading.given,
        rules,
    )
    return ConfigReport(found.name, errors, config)


def _spent(source: Source, schedule: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what is written of each entry, and let go of it.

    It takes as much memory as all that is made of it. What others hold is theirs.
    """
    for word in settings.table()["beat_schedule"].spellings:
        if word in source.written:
            source.let_go(word)
    for name in [*schedule]:
        yield name, schedule.pop(name)
    schedule.clear()  # an empty dict is as large as it ever was


def _nameless_zone(chosen: Settings, found: Source) -> Iterator[Problem]:
    """Yield a problem if entries are to go by local time, and which is not known."""
    if not (chosen.enable_utc or chosen.timezone or settings.local_zone()):
        text = "enable_utc: off means local time, and this machine's zone has no name"
        hint = "set timezone, as in timezone = 'Europe/Berlin', or $TZ"
        yield Problem(text, hint, _place_of("enable_utc", found))


def _calls_of(
    app: object,
    chosen: Settings,
    format: MessageFormat,
    router: Router,
    warnings: list[Problem],
) -> Calls:
    """Return what makes messages of calls, as the app that has the config does."""
    if is_celery(app):
        return CeleryCalls(app, format.body_encoding, chosen.beat_sentry_monitors)
    plain = PlainCalls(format, router, chosen.task_default_priority)
    if not isinstance(app, App):
        return plain
    try:
        app.import_tasks()
    except ConfigError as error:
        text = "; ".join(error.problems)
        hint = "until then, entries are sent without the options of their tasks"
        warnings.append(Problem(f"{error.source}: {text}", hint, warning=True))
    return AppCalls(app, plain)


def _accepted(chosen: Settings, found: Source) -> Iterator[Problem]:
    """Yield problems with the content types that are to be decoded."""
    for name in ("accept_content", "result_accept_content"):
        try:
            accepted = content_types(getattr(chosen, name) or ())
        except MessageError as error:
            text = f"{name}: {error}"
            hint = "the scheduler needs none of them, and a worker will not start"
        else:
            if not accepted & content_types(["pickle"]):
                continue
            text = f"{name}: who can write pickle to the server runs any code here"
            hint = "leave pickle out, or let nobody else reach the server"
        yield Problem(text, hint, _place_of(name, found), warning=True)


def _eager(chosen: Settings, found: Source) -> Iterator[Problem]:
    """Yield a problem if calls are run where they are made: entries are not."""
    if chosen.task_always_eager:
        text = "task_always_eager: scheduled tasks are queued, not run in the scheduler"
        hint = "a worker has to run them; leave it out where none does"
        yield Problem(text, hint, _place_of("task_always_eager", found), warning=True)


def _unproven(chosen: Settings, found: Source) -> Iterator[Problem]:
    """Yield a problem for each server that need not prove who it is."""
    broker, results = chosen.broker_use_ssl, chosen.redis_backend_use_ssl
    servers: dict[tuple[str, str], object] = {
        (url, "broker_use_ssl" if broker else "broker_url"): broker
        for url in (*chosen.write_urls, *chosen.read_urls)
    }
    if url := chosen.result_url:
        name = "redis_backend_use_ssl" if results else "result_backend"
        servers[url, name] = results
    for (url, name), use_ssl in servers.items():
        if is_unproven(url, use_ssl):
            place = _place_of(name, found)
            yield Problem(f"{name}: {_ANYBODY} {mask_url(url)}", _PROOF, place, True)


_ANYBODY = "with ssl_cert_reqs none, whoever is on the way there can pass for"
_PROOF = (
    "let it be required, and name the file of who signed the server's certificate in"
    " ssl_ca_certs"
)


def _place_of(name: str, found: Source) -> Place | None:
    places = (found.locate_value(word) for word in settings.table()[name].spellings)
    return next(filter(None, places), None)


def _repeated(found: Source) -> Iterator[Problem]:
    words = settings.table()["beat_schedule"].spellings
    for word in filter(found.written.__contains__, words):
        for key, first, second in found.repeated(word):
            yield Problem(
                f"{key!r} stands twice in one dict, first in line {first.line}",
                "only the last one counts: rename or remove one",
                second,
                warning=True,
            )


# What messages have in common ------------------------------------------------------


def message_format(chosen: Settings) -> MessageFormat:
    """Return the form of all messages that this process sends."""
    mode = chosen.task_default_delivery_mode
    return MessageFormat(
        serializer=chosen.task_serializer,
        compression=chosen.task_compression,
        body_encoding=chosen.broker_transport_options.get("body_encoding", "base64"),
        protocol=chosen.task_protocol,
        utc=chosen.enable_utc,
        zone=chosen.zone,
        origin=f"gen{os.getpid()}@{socket.gethostname()}",
        delivery_mode=1 if mode in (1, "transient") else 2,
        repr_levels=chosen.task_repr_maxlevels,
    )


def router(chosen: Settings, *, routes: bool = True) -> Router:
    """Return the router of messages; raise MessageError if the rules are wrong.

    Without `routes` it knows the queues only.
    """
    return Router(
        queues=_queues(chosen.task_queues),
        default_queue=chosen.task_default_queue,
        default_exchange=chosen.task_default_exchange or "",
        default_exchange_type=chosen.task_default_exchange_type,
        default_routing_key=chosen.task_default_routing_key or "",
        routes=chosen.task_routes if routes else None,
        create_missing=chosen.task_create_missing_queues,
        missing_exchange_type=chosen.task_create_missing_queue_exchange_type
        or "direct",
        default_queue_type=chosen.task_default_queue_type,
        missing_queue_type=chosen.task_create_missing_queue_type,
        max_priority=chosen.task_queue_max_priority,
    )


def _try_router(chosen: Settings, found: Source, errors: list[Problem]) -> Router:
    try:
        # What an app of Celery sends is routed by Celery.
        return router(chosen, routes=not is_celery(found.app))
    except Exception as error:
        # Beside MessageError also what foreign code raises: rules are user's objects.
        text = str(error) if isinstance(error, MessageError) else ""
        if not text:
            text = f"task_routes: {raised_by_reading(error)}"
        name = re.split(r"\W", text)[0]
        places = (found.locate(word) for word in settings.table()[name].spellings)
        errors.append(Problem(text, place=next(filter(None, places), None)))
        return Router()


def _queues(declared: Any) -> list[Queue]:
    """Return the queues of `task_queues`: a list of Queue, or a dict by name."""
    if declared is None:
        return []
    if isinstance(declared, Mapping):
        queues = [_queue_of(name, options) for name, options in declared.items()]
    elif isinstance(declared, list | tuple | set | frozenset):
        queues = [_queue(queue) for queue in declared]
    else:
        problem = f"expected a list or a dict, got {quoted(declared)}"
        raise MessageError(f"task_queues: {problem}")
    for queue in queues:
        _check_queue(queue)
    return queues


def _check_queue(queue: Queue) -> None:
    where = f"task_queues[{quoted(queue.name)}]"
    for name in ("name", "exchange", "exchange_type", "routing_key"):
        value = getattr(queue, name)
        if not isinstance(value, str) or not is_encodable(value):
            raise MessageError(f"{where}: {name}: expected text, got {quoted(value)}")
    try:
        seconds_of(0 if queue.expires is None else queue.expires)
    except ValueError as error:
        raise MessageError(f"{where}: expires: {error}") from None


def _queue(declared: Any) -> Queue:
    queue = Queue(declared) if isinstance(declared, str) else queue_of(declared)
    if queue is None:
        raise MessageError(f"task_queues: expected a Queue, got {quoted(declared)}")
    return queue


_QUEUE_OPTIONS = {
    "exchange": "exchange",
    "exchange_type": "exchange_type",
    "routing_key": "routing_key",
    "binding_key": "routing_key",
    "expires": "expires",
}


def _queue_of(name: str, options: Any) -> Queue:
    """Return one queue of a dict; options that only AMQP has are passed over."""
    if not isinstance(options, Mapping | None):
        where = f"task_queues[{quoted(name)}]"
        raise MessageError(f"{where}: expected a dict, got {quoted(options)}")
    given = {
        ours: options[theirs]
        for theirs, ours in _QUEUE_OPTIONS.items()
        if options and options.get(theirs) is not None
    }
    return Queue(name, **given)
