"""An application's settings: read from a config, changed by code."""

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from beatd.config import modules
from beatd.config import settings as reading
from beatd.config.faults import Unreadable
from beatd.config.settings import Settings
from beatd.config.source import Source
from beatd.errors import ConfigError


class Owner(Protocol):
    """The application, as its `conf` uses it."""

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        ...

    def own_setting(self, name: str) -> Any:
        """Return what the config has under a name that is no setting, or KeyError."""
        ...

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set some settings, in any spelling."""
        ...


_URLS = ("broker_url", "broker_read_url", "broker_write_url")


class Conf(MutableMapping[str, Any]):
    """An application's settings, read and written in every spelling.

    A setting that is written here wins over that of `config_from_object`. What the
    config has beside settings is read by the name under which it is written.
    """

    def __init__(self, app: Owner) -> None:
        self.__dict__["_app"] = app

    def __getitem__(self, name: str) -> Any:
        known = reading.spellings().get(name)
        if known is None:
            return self._app.own_setting(name)
        value = getattr(self._app.settings, known)
        return ";".join(value) if value and known in _URLS else value

    def __setitem__(self, name: str, value: Any) -> None:
        self._app.change({name: value})

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"a setting cannot be removed: {name}")

    def __iter__(self) -> Iterator[str]:
        return iter(reading.table())

    def __len__(self) -> int:
        return len(reading.table())

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            hint = reading.did_you_mean(name, reading.spellings())
            problem = f"no setting named {name!r}"
            raise AttributeError(f"{problem}; {hint}" if hint else problem) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class GivenConfig:
    """The config that an application is given: a source, changes to it, and entries.

    Changes by code win over the source, and the source over defaults by code; entries
    of the source win over those by code.
    """

    def __init__(self, source: Callable[[], Source], changes: dict[str, Any]) -> None:
        self._source = source
        self._changes = changes
        self._entries: dict[str, dict[str, Any]] = {}
        self._defaults: list[Any] = []
        self._read: Mapping[str, Any] = {}

    def take(self, source: Callable[[], Source]) -> None:
        """Read settings from this source from now on."""
        self._source = source

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set some settings, in any spelling."""
        self._changes = changed(self._changes, settings)

    def written(self, name: str) -> Any:
        """Return what was written under this name when the config was read last.

        Or changed since then. Raises KeyError.
        """
        return self._changes[name] if name in self._changes else self._read[name]

    def add_defaults(self, settings: Any) -> None:
        """Take these settings, or what this function returns, where none are set."""
        self._defaults.append(settings)

    def add_entry(self, name: str, entry: dict[str, Any]) -> None:
        """Add an entry to the schedule."""
        self._entries[name] = entry

    def read(self, when_read: Callable[[], None]) -> Source:
        """Return the source with the changes and entries; it is read afresh.

        `when_read` is called once the source is read, and may change settings and add
        entries. Raises ConfigError.
        """
        try:
            found = self._source()
        except Unreadable as error:
            raise ConfigError(error.source, [str(error.problem)]) from error
        when_read()
        written: dict[str, Any] = {}
        for given in self._defaults:
            written = changed(given() if callable(given) else given, written)
        for given in (found.written, self._changes):
            written = changed(written, given)
        if self._entries:
            spelled = next(filter(is_schedule, written), "beat_schedule")
            written[spelled] = {**self._entries, **dict(written.get(spelled, {}))}
        self._read = written
        return replace(found, written=written)


def changed(written: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the written settings with these changes, in any spelling of both."""
    spellings = reading.spellings()
    meant = {spellings.get(word, word) for word in changes}
    kept = {k: v for k, v in written.items() if spellings.get(k, k) not in meant}
    return kept | dict(changes)


def settings_of(found: Source) -> Settings:
    """Return the settings that a source has; ConfigError says all that is wrong."""
    read = reading.read(found.written, environ=os.environ, locate=found.locate)
    errors = [str(one) for one in read.problems if not one.warning]
    if errors:
        raise ConfigError(found.name, errors)
    return read.settings


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings with some of them changed; ConfigError if they cannot be.

    A name that is no setting's, nor like one, is the project's own.
    """
    spellings = reading.spellings()
    changes = {
        word: value
        for word, value in changes.items()
        if word in spellings or reading.did_you_mean(word, spellings)
    }
    read = reading.read(changes)
    if read.problems:
        raise ConfigError("the app", list(map(str, read.problems)))
    names = {spellings[word] for word in changes}
    return replace(settings, **{name: getattr(read.settings, name) for name in names})


def is_schedule(word: str) -> bool:
    """Return whether a setting of this spelling is the schedule."""
    return reading.spellings().get(word) == "beat_schedule"


def read_object(obj: Any, namespace: str | None) -> Source:
    """Return the settings that an object has, or what a name like `mod:obj` means."""
    if isinstance(obj, str):
        found = modules.of_name(obj)
    elif isinstance(obj, Mapping):
        found = Source("a dict", obj)
    else:
        name = getattr(obj, "__name__", type(obj).__name__)
        found = Source(name, modules.values_of(obj))
    return _within(namespace, found) if namespace else found


def _within(namespace: str, found: Source) -> Source:
    """Return the settings with this prefix, without it where that is a known name."""
    written: dict[str, object] = {}
    spelled: dict[str, Sequence[str]] = {}
    for word, value in found.written.items():
        if word == "TIME_ZONE":  # Django's: it counts where no zone is set
            written[word] = value
        if word.startswith(f"{namespace}_"):
            bare = word.removeprefix(f"{namespace}_").lower()
            is_known = word in reading.spellings() or bare not in reading.spellings()
            written[word if is_known else bare] = value
            spelled[bare] = (word,)
    return replace(found, written=written, spelled=spelled)
