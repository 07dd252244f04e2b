"""Finds the app that `-A` names: by Celery's own code, and for `Beatd` in its ways.

A word is `proj`, `proj.mod`, `proj.mod.attribute`, `proj.mod:attribute` or a file,
`proj/mod.py`. An app of Celery's has imported Celery: then `find_app` is asked, the
same function that `celery -A` calls.
"""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from beatd.config.app_calls import TaskApp
from beatd.config.faults import Unreadable, no_file
from beatd.config.modules import import_module, put_on_path
from beatd.config.settings import Problem, did_you_mean
from beatd.config.source import Source
from beatd.text import quoted


@runtime_checkable
class App(TaskApp, Protocol):
    """An app of beatd's, by the methods that the config is read with."""

    def beatd_config(self) -> Source:
        """Return the app's config, read afresh at each call."""
        ...

    def import_tasks(self) -> None:
        """Import the modules of the app's tasks. Raises ConfigError."""
        ...


def app_named(word: str, folder: Path) -> Any:
    """Return the app; its module is imported as any other: its tasks register once.

    Raises Unreadable, which says what was looked for, and what is there instead.
    """
    put_on_path(folder)
    try:
        return _app_named(_module_word(word, folder))
    except Unreadable as error:
        raise Unreadable(word, error.problem) from error


def is_celery(value: object) -> bool:
    """Return whether a value is an app of Celery's, or stands for one."""
    base = sys.modules.get("celery.app.base")
    return base is not None and isinstance(value, base.Celery)


def is_app(value: object) -> bool:
    """Return whether a value is an app, of beatd's or of Celery's."""
    return not isinstance(value, type) and (isinstance(value, App) or is_celery(value))


def _module_word(word: str, folder: Path) -> str:
    """Return the word with a file replaced by its module; its folder goes on the path.

    A file in a package is a module of that package.
    """
    path, separator, attribute = word.partition(":")
    if path.endswith(".py"):
        file = folder / Path(path).expanduser()
        if not file.is_file():
            raise Unreadable(word, no_file(file))
        names, top = [file.stem], file.parent
        while (top / "__init__.py").is_file():
            names.insert(0, top.name)
            top = top.parent
        put_on_path(top)
        return ".".join(names) + separator + attribute
    names = [*path.split("."), *(attribute.split(".") if separator else ())]
    if all(names) and os.sep not in path and all(map(str.isidentifier, names[1:])):
        return word
    hint = "write -A module, -A module:attribute or -A file.py"
    module = path.strip(f".{os.sep}").replace(os.sep, ".")
    if all(map(str.isidentifier, module.split("."))):
        attribute = f":{attribute}" if attribute.isidentifier() else ""
        hint += f": here -A {module}{attribute}"
    raise Unreadable(word, Problem(f"{quoted(word)} names no module", hint))


def _app_named(word: str) -> Any:
    named = _imported(word)
    if "celery.app.base" in sys.modules and is_app(found := _by_celery(word)):
        return found
    for candidate in _candidates(named):
        if is_app(candidate):
            return candidate
    raise Unreadable(word, _no_app(word, named))


def _imported(word: str) -> Any:
    """Import what a word names, and return it: a module, or an object in one."""
    left, separator, right = word.partition(":")
    if separator:
        return _attribute(import_module(left), right)
    package, _, last = word.rpartition(".")
    if not package:
        return import_module(word)
    parent = import_module(package)
    if hasattr(parent, last):
        return getattr(parent, last)
    if hasattr(parent, "__path__"):
        if find_spec(word) is None and (apps := _apps_in(parent)):
            text = f"{package!r} has no {last!r}, neither an attribute nor a module"
            raise Unreadable(word, Problem(text, _instead(package, apps)))
        return import_module(word)
    return _attribute(parent, last)


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            words = [name for name in vars(module) if not name.startswith("_")]
            hint = _instead(module.__name__, _apps_in(module))
            text = f"{module.__name__!r} has no {part!r}"
            near = did_you_mean(part, words)
            raise Unreadable(path, Problem(text, near or hint))
        found = getattr(found, part)
    return found


def _by_celery(word: str) -> Any:
    """Return what `celery -A` would find; None where it finds nothing."""
    from celery.app.utils import find_app

    try:
        return find_app(word)
    except (AttributeError, ImportError):
        # Every module that the word names is imported already. It has no app, or the
        # word goes deeper than Celery's would.
        return None


def _candidates(found: Any) -> Iterator[Any]:
    """Yield the objects that may be the app, in Celery's order."""
    yield found
    if not isinstance(found, ModuleType):
        return
    for name in ("app", "celery"):
        yield getattr(found, name, None)
    if hasattr(found, "__path__") and find_spec(f"{found.__name__}.celery"):
        yield from _candidates(import_module(f"{found.__name__}.celery"))
    yield from list(vars(found).values())


def _no_app(word: str, named: Any) -> Problem:
    """Return the problem that what a word names is no app, and has none."""
    if not isinstance(named, ModuleType):
        kind = "a function" if callable(named) and not is_app(named) else ""
        kind = "a class" if isinstance(named, type) else kind
        kind = kind or f"an object of type {type(named).__name__}"
        text = f"{word!r} is {kind}, and no beatd.Beatd or celery.Celery object"
        hint = "give the app that it makes a name in the module, and name that"
        return Problem(text, hint if callable(named) else "name the app itself")
    expected = "app, celery and any other beatd.Beatd or celery.Celery object"
    text = f"no app in {word!r}: looked for {expected}"
    makers = [
        name
        for name, value in vars(named).items()
        if callable(value) and getattr(value, "__module__", "") == named.__name__
        if "app" in name.lower() or "celery" in name.lower()
    ]
    if makers:
        made = f"if {makers[0]} makes it, write app = {makers[0]}(...) in the module"
        return Problem(text, made)
    return Problem(text, "name it, as in -A proj:app")


def _apps_in(module: ModuleType) -> list[str]:
    return [name for name, value in list(vars(module).items()) if is_app(value)]


def _instead(module: str, apps: list[str]) -> str:
    return f"it has the app -A {module}:{apps[0]}" if apps else ""
