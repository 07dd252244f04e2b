"""An application's settings: read from whatever it was given, written by code."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from beatd.config import modules
from beatd.config import settings as reading
from beatd.config.settings import Settings
from beatd.config.source import Source


class Owner(Protocol):
    """The application, as its `conf` uses it."""

    @property
    def settings(self) -> Settings:
        """Give the settings."""
        ...

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set some settings, in any spelling."""
        ...


class Conf(MutableMapping[str, Any]):
    """An application's settings, read and written in every spelling.

    What is written here goes before what `config_from_object` gave.
    """

    def __init__(self, app: Owner) -> None:
        self.__dict__["_app"] = app

    def __getitem__(self, name: str) -> Any:
        known = reading.spellings().get(name)
        if known is None:
            raise KeyError(name)
        return getattr(self._app.settings, known)

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


def changed(written: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put changes over what is written, in whatever spelling that is."""
    spellings = reading.spellings()
    meant = {spellings.get(word, word) for word in changes}
    kept = {k: v for k, v in written.items() if spellings.get(k, k) not in meant}
    return kept | dict(changes)


def is_schedule(word: str) -> bool:
    """Say whether a setting of this spelling is the schedule."""
    return reading.spellings().get(word) == "beat_schedule"


def read_object(obj: Any, namespace: str | None) -> Source:
    """Give what an object, or the module of this name, says of settings."""
    if isinstance(obj, str) and ":" not in obj:
        found = modules.of_module(obj)
    else:
        found = _of_object(obj)
    return _within(namespace, found) if namespace else found


def _of_object(obj: Any) -> Source:
    if isinstance(obj, str):
        module, _, attribute = obj.partition(":")
        obj = getattr(modules.import_module(module), attribute)
    if isinstance(obj, Mapping):
        return Source("a dict", obj)
    words = [word for word in dir(obj) if word.isupper() or word in reading.spellings()]
    name = getattr(obj, "__name__", type(obj).__name__)
    return Source(name, {word: getattr(obj, word) for word in words})


def _within(namespace: str, found: Source) -> Source:
    """Keep the names of one name-space, without it where that makes them known."""
    written = {}
    for word, value in found.written.items():
        if word.startswith(f"{namespace}_"):
            bare = word.removeprefix(f"{namespace}_").lower()
            is_known = word in reading.spellings() or bare not in reading.spellings()
            written[word if is_known else bare] = value
    return Source(found.name, written, found.file, found.text)
