"""The settings of a Celery app: their values by Celery's own `conf`, by new names.

What Celery reads of a setting (namespaces, old names, changes by code, defaults that
are made when they are needed) is its `conf`'s business. Only which names were written,
and where, is looked up here: for `beatd check`.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from beatd.config.faults import is_theirs, raised, raised_by_reading, short
from beatd.config.settings import Problem, spellings, table, unknown_names
from beatd.config.source import Source
from beatd.schedules import crontab


@dataclass(frozen=True, slots=True)
class StartingWorker:
    """A worker as receivers of `celeryd_init` see it: it has not been set up yet."""

    app: Any
    hostname: str


def celeryd_init(app: Any, hostname: str) -> Iterator[Problem]:
    """Let receivers of `celeryd_init` change settings, before these are read.

    Yields what they raise: Celery logs it and goes on.
    """
    from celery import signals

    worker = StartingWorker(app, hostname)
    with receivers_heard() as raised_by_receivers:
        signals.celeryd_init.send(
            sender=hostname, instance=worker, conf=app.conf, options={}
        )
        for problem in raised_by_receivers():
            message = f"celeryd_init: {problem.message}"
            yield replace(problem, message=message, warning=True)


def settings_of(app: Any, name: str) -> Source:
    """Return the settings of a Celery app; `name` is what people call it.

    Its task modules are imported first, as `celery beat` does, for they may add
    periodic tasks.
    """
    app.loader.init_worker()
    app.finalize()
    conf = _Conf(app)
    texts = _Texts(app, conf)
    spelled = {setting: conf.words_for(setting) for setting in table()}
    written = conf.written()
    problems = [*_add_cleanup(app, written)]
    found = Source(name, written, more=texts.having, spelled=spelled, app=app)
    return replace(found, problems=[*problems, *conf.unknown(found)])


_CLEANUP = "celery.backend_cleanup"


def _add_cleanup(app: Any, written: dict[str, object]) -> Iterator[Problem]:
    """Add the entry that `celery beat` adds: it removes results that are too old.

    Results that end by themselves need none.
    """
    schedule = dict(app.conf.beat_schedule)
    if not app.conf.result_expires or _CLEANUP in schedule:
        return
    try:
        # Not `app.backend`: that is kept, and a worker may be told to use another.
        ends_by_itself = app._get_backend().supports_autoexpire
    except Exception as error:  # the backend's own code: a driver that is missing, say
        text = f"result_backend: {raised_by_reading(error)}"
        hint = f"{_CLEANUP} is not scheduled, and old results may stay"
        yield Problem(text, hint, warning=True)
        return
    if not ends_by_itself:
        daily, options = crontab("0", "4"), {"expires": 12 * 3600}
        entry = {"task": _CLEANUP, "schedule": daily, "options": options}
        written["beat_schedule"] = {**schedule, _CLEANUP: entry}


@dataclass(frozen=True)
class _Conf:
    """An app's `conf`, asked for what was set in it and what was only written."""

    app: Any

    @property
    def conf(self) -> Any:
        return self.app.conf

    @property
    def prefix(self) -> str:
        """The namespace as names in it begin, `CELERY_`; empty without one."""
        return (self.conf.prefix or "").upper()

    @cached_property
    def layers(self) -> Sequence[Mapping[str, object]]:
        """Changes by code and the config, without the defaults."""
        layers: Sequence[Mapping[str, object]] = self.conf.maps[:-1]
        return layers

    def written(self) -> dict[str, object]:
        """Return the values that were set, by new names."""
        conf = self.conf
        given = type(conf)({}, list(self.layers), conf._keys, conf.prefix)
        found = {name: _value(conf[name]) for name in table() if name in given}
        for word, name in self._ours().items():
            for layer in self.layers:
                if name not in found and word in layer:
                    found[name] = layer[word]
        # Periodic tasks that code adds go into whichever layer has the schedule.
        if schedule := conf["beat_schedule"]:
            found["beat_schedule"] = schedule
        if zone := conf.timezone:
            found["timezone"] = _value(zone)
        return found

    def _ours(self) -> Mapping[str, str]:
        """Return other spellings of settings that Celery does not have."""
        own = [row for row in table().values() if row.note.own]
        return {word: row.name for row in own for word in row.spellings}

    def words_for(self, name: str) -> Sequence[str]:
        """Return how a setting may be spelled, in the order in which Celery looks."""
        first = [self.prefix + name.upper()] if self.prefix else []
        zone = ["TIME_ZONE"] if name == "timezone" else []
        words = [*first, name, *table()[name].spellings, *zone]
        return tuple(dict.fromkeys(words))

    def unknown(self, found: Source) -> Iterator[Problem]:
        """Yield a problem for each name that was written and that is no setting."""
        known = set(self._known())
        changes, *configs = self.layers
        words = [word for layer in configs for word in layer if _is_name(word)]
        if self.prefix:
            words = [word for word in words if word.upper().startswith(self.prefix)]
            yield from unknown_names(words, known, found.locate, (self.prefix.lower(),))
            words = []
        elif any(hasattr(layer, "SETTINGS_MODULE") for layer in configs):
            words = [word for word in words if word.startswith("CELERY")]
        words = [*changes, *words]
        for word in words:
            if word not in known and word in spellings():
                # Right elsewhere: with beatd's own reading, or with a namespace.
                hint = f"write {spellings()[word]}, or give the app namespace='CELERY'"
                text = f"{word}: Celery does not read this name without a namespace"
                yield Problem(text, hint, found.locate(word), warning=True)
        words = [word for word in words if word not in spellings()]
        yield from unknown_names(words, known, found.locate)

    def _known(self) -> Iterator[str]:
        """Yield the names that Celery reads in this app, and those of beatd's own."""
        from celery.app.defaults import _OLD_SETTING_KEYS, SETTING_KEYS

        yield from _OLD_SETTING_KEYS
        yield from self._ours()
        for name in (*SETTING_KEYS, *table()):
            yield name
            if self.prefix:
                yield self.prefix + name.upper()


def _is_name(word: object) -> bool:
    return isinstance(word, str) and not word.startswith("_")


def _value(value: Any) -> Any:
    """Return a value that is made when it is needed, made now."""
    for kind in type(value).__mro__:
        match kind.__module__, kind.__name__:
            case "kombu.utils.functional", "lazy":
                return value()
            case "django.utils.functional", "Promise":
                return str(value)
    return value


# Where it is written ------------------------------------------------------------------


@dataclass
class _Texts:
    """The texts of a project's modules, for those that look for a name in them."""

    app: Any
    conf: _Conf
    _read: dict[tuple[str, ...], Source] = field(default_factory=dict)

    def having(self, word: str) -> Iterator[Source]:
        """Yield the texts in which `word` may be written, the likeliest first."""
        for within, module in self._of_config:
            yield from self._text(module, within)
        having = (module for module in _modules() if word in vars(module))
        for module in (*self._of_app, *having):
            yield from self._text(module, ())

    @cached_property
    def _of_app(self) -> list[ModuleType]:
        """The modules that have the app: what it is given may be written there."""
        return [module for module, _ in _holders(self.app)]

    @cached_property
    def _of_config(self) -> list[tuple[tuple[str, ...], ModuleType | None]]:
        return list(self._config())

    def _config(self) -> Iterator[tuple[tuple[str, ...], ModuleType | None]]:
        """Yield the objects that hold the config, as names in their modules."""
        for layer in self.conf.layers:
            found = getattr(layer, "obj", None)
            if found is None:
                for module, name in _holders(layer):
                    yield (name,), module
                continue
            if hasattr(found, "SETTINGS_MODULE"):  # Django's
                yield (), sys.modules.get(str(found.SETTINGS_MODULE))
                continue
            if isinstance(found, ModuleType):
                yield (), found
                continue
            kind = found if isinstance(found, type) else type(found)
            for base in kind.__mro__[:-1]:
                names = tuple(base.__qualname__.split("."))
                yield names, sys.modules.get(base.__module__)

    def _text(
        self, module: ModuleType | None, within: tuple[str, ...]
    ) -> Iterator[Source]:
        file = getattr(module, "__file__", None) or ""
        if not file.endswith(".py") or not is_theirs(file):
            return
        key = (file, *within)
        if key not in self._read:
            try:
                text = Path(file).read_text(errors="replace")
            except OSError:
                text = ""  # no longer there: nothing to show
            self._read[key] = Source(file, {}, short(file), text, within=within)
        yield self._read[key]


def _modules() -> list[ModuleType]:
    return [one for one in list(sys.modules.values()) if isinstance(one, ModuleType)]


def _holders(held: object) -> Iterator[tuple[ModuleType, str]]:
    """Yield the modules of the project that have this object, and its name in them."""
    for module in _modules():
        if is_theirs(getattr(module, "__file__", None) or "<none>"):
            for name, value in list(vars(module).items()):
                if value is held:
                    yield module, name


# What Celery only logs ----------------------------------------------------------------


@contextmanager
def receivers_heard() -> Iterator[Callable[[], Iterable[Problem]]]:
    """Collect what receivers of signals raise for the block's time.

    Celery logs it and goes on; entries that such a receiver would have added would be
    missing. What it raised can be asked for in the block.
    """
    logger = logging.getLogger("celery.utils.dispatch.signal")
    outer, logger.filters[:] = logger.filters[:], []
    problems: list[Problem] = []

    def hear(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        problems.append(raised(error, ""))
        return False

    logger.addFilter(hear)
    try:
        yield lambda: problems
    finally:
        logger.filters[:] = outer
