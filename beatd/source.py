"""Where a config comes from: a module, a file or an app; and the lines of its text.

A config module is executed afresh each time, from the text as it is now: not from
`sys.modules`, and not from a `.pyc` that a quick second save would leave out of date.
"""

import ast
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import (
    decode_source,
    find_spec,
    module_from_spec,
    spec_from_file_location,
)
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

from beatd.config.settings import Place, Problem, did_you_mean, mask, spellings, table

DEFAULT_MODULE = "celeryconfig"


class Unreadable(Exception):
    """There is no config to be had from `source`, because of `problem`."""

    def __init__(self, source: str, problem: Problem) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Raised:
    """Stands in an entry for a value whose making raised `error`."""

    error: Exception


Node: TypeAlias = ast.expr | ast.keyword


@dataclass(frozen=True)
class Source:
    """What a config says, and the text in which it says so."""

    name: str
    """For people: `shop.config`, `/etc/beatd/config/loading.py`, `shop:app`."""
    written: Mapping[str, object] = field(repr=False)
    """Names and values as they stand there; not all of them need be settings."""
    file: str = ""
    text: str = field(default="", repr=False)
    app: object = field(default=None, repr=False)
    """The app that it was read from, if it was one."""

    def locate(self, *path: str) -> Place | None:
        """Give the place of a setting, or of a key (of a key ...) in its value.

        What the text does not show, as an entry that a loop makes, is said to be where
        the last part of `path` is that it does show. None without any text.
        """
        found = self._find(path)
        return self._place(found[0]) if found else None

    def locate_value(self, *path: str) -> Place | None:
        """Give the place of the value that `locate` gives the key of."""
        found = self._find(path)
        return self._place(found[1] or found[0]) if found else None

    def repeated(self, setting: str) -> Iterator[tuple[str, Place, Place]]:
        """Give each key that one dict in the setting's value has twice, both places."""
        _, value = self._assigned.get((setting,), (None, None))
        for literal in ast.walk(value) if value else ():
            first: dict[str, Node] = {}
            for word, key, _ in _items(literal):
                if word in first:
                    yield word, self._place(first[word]), self._place(key)
                first[word] = key

    def line(self, number: int) -> str:
        """Give one line of the text, counted from 1; empty if there is none."""
        return self._lines[number - 1] if number <= len(self._lines) else ""

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def _assigned(self) -> "_Assignments":
        return _assignments(ast.parse(self.text)) if self.text else {}

    def _find(self, path: tuple[str, ...]) -> tuple[Node, Node | None] | None:
        for length in range(len(path), 0, -1):
            if found := self._assigned.get(path[:length]):
                return _descend(*found, path[length:])
        return None

    def _place(self, node: Node) -> Place:
        line = self.line(node.lineno).encode()
        is_long = node.end_lineno != node.lineno or node.end_col_offset is None
        end = len(line) if is_long else node.end_col_offset
        # ast counts bytes; people, and the carets under the line, count characters.
        column, end_column = (len(line[:at].decode()) for at in (node.col_offset, end))
        return Place(self.file, node.lineno, column, end_column)


_Assignments: TypeAlias = dict[tuple[str, ...], tuple[Node, Node | None]]


def _assignments(tree: ast.Module) -> _Assignments:
    """Give path to (name, value) for `name = value` and `name["key"] = value`.

    As in Python the last one counts. Functions and classes have names of their own.
    """
    found: _Assignments = {}
    for statement in _statements(tree):
        value = getattr(statement, "value", None)
        for target in _targets(statement):
            match target:
                case ast.Name(name):
                    found[(name,)] = (target, value)
                case ast.Subscript(ast.Name(name), ast.Constant(str(key))):
                    found[(name, key)] = (target, value)
    return found


def _statements(body: ast.AST) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(body):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, ast.expr):
            yield from _statements(child)


def _targets(statement: ast.stmt) -> list[ast.expr]:
    match statement:
        case ast.Assign(targets):
            return targets
        case ast.AnnAssign(target) | ast.AugAssign(target):
            return [target]
    return []


def _items(node: ast.AST) -> Iterator[tuple[str, Node, Node]]:
    """Give (word, key, value) of a dict literal, or of a call's keyword arguments."""
    match node:
        case ast.Dict(keys, values):
            for key, value in zip(keys, values, strict=True):
                match key:
                    case ast.Constant(str(word)):
                        yield word, key, value
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                if keyword.arg:
                    yield keyword.arg, keyword, keyword.value


def _descend(
    key: Node, value: Node | None, path: tuple[str, ...]
) -> tuple[Node, Node | None]:
    """Follow `path` into the dicts of `value` as far as they are shown."""
    for part in path:
        items = {word: (key, inner) for word, key, inner in _items(value or key)}
        if part not in items:
            break
        key, value = items[part]
    return key, value


# Modules and files -----------------------------------------------------------------


def of_config(target: str | None, environ: Mapping[str, str], folder: Path) -> Source:
    """Give the config named `target`, else by `$BEATD_CONFIG`, else celeryconfig.

    `target` is a module or a file; its folder, or for modules `folder`, the working
    directory, is put on `sys.path`, so that the config can import its neighbours.
    """
    named = target or environ.get("BEATD_CONFIG") or environ.get("CELERY_CONFIG_MODULE")
    if named and (named.endswith(".py") or os.sep in named):
        return _of_file(named, folder)
    _put_on_path(folder)
    if not named and find_spec(DEFAULT_MODULE) is None:
        problem = Problem(
            f"no {DEFAULT_MODULE}.py in {folder}",
            "name a config with --config FILE or $BEATD_CONFIG, or an app with -A",
        )
        raise Unreadable(DEFAULT_MODULE, problem)
    return of_module(named or DEFAULT_MODULE)


def of_module(name: str) -> Source:
    """Execute the module `name` afresh."""
    importlib.invalidate_caches()
    before = sys.modules.pop(name, None)
    try:
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            raise Unreadable(name, _no_module(name))
        return _execute(name, spec)
    except Unreadable:
        raise
    except ModuleNotFoundError as error:
        # Of the packages that `name` lies in, or one that these import.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise Unreadable(name, _no_module(error.name)) from error
        raise Unreadable(name, _raised(error, "")) from error
    except (Exception, SystemExit) as error:  # whatever a package of theirs may raise
        raise Unreadable(name, _raised(error, "")) from error
    finally:
        if name not in sys.modules and before is not None:
            sys.modules[name] = before


def _of_file(name: str, folder: Path) -> Source:
    path = folder / Path(name).expanduser()
    try:
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Unreadable(name, _no_file(path)) from None
    except OSError as error:
        problem = Problem(f"{path} cannot be read: {error.strerror}")
        raise Unreadable(name, problem) from error
    _put_on_path(path.parent)
    spec = spec_from_file_location(path.stem, path)
    if spec is None:
        raise Unreadable(name, Problem(f"{path} is no Python file"))
    before = sys.modules.pop(path.stem, None)
    try:
        return _execute(name, spec)
    finally:
        if path.stem not in sys.modules and before is not None:
            sys.modules[path.stem] = before


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _execute(name: str, spec: ModuleSpec) -> Source:
    """Run a module's text as it is now; on failure it is in `sys.modules` no more."""
    module = module_from_spec(spec)
    file = spec.origin or ""
    text = ""
    sys.modules[spec.name] = module
    try:
        if isinstance(spec.loader, SourceFileLoader):
            text = decode_source(Path(file).read_bytes())
            _run(text, file, vars(module))
        elif spec.loader is not None:
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever their code may raise
        del sys.modules[spec.name]
        raise Unreadable(name, _raised(error, file)) from error
    parent, _, child = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return Source(name, _public(module), _short(file), text)


def _run(text: str, file: str, names: dict[str, Any]) -> None:
    """Execute a config's text.

    A value in an entry that raises, `crontab(minute=61)` say, spoils its own entry and
    no other: it is replaced by a Raised, and the text executed once more.
    """
    tree = None
    code = compile(text, file, "exec", dont_inherit=True)
    raised = 0
    while True:
        try:
            exec(code, names)
        except Exception as error:
            tree = tree or ast.parse(text)
            stand_in = f"_raised_{raised}"
            if not _replace_value(tree, _position(error, file), stand_in):
                raise
            names[stand_in] = Raised(error.with_traceback(None))
            code = compile(tree, file, "exec", dont_inherit=True)
            raised += 1
        else:
            return


_Position: TypeAlias = tuple[int | None, int | None, int | None, int | None]
"""Line, end line, column and end column, as code objects have them."""


def _position(error: Exception, file: str) -> _Position | None:
    """Give where in the module's own code the error came up."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == file and code.co_name == "<module>":
            return list(code.co_positions())[trace.tb_lasti // 2]
        trace = trace.tb_next
    return None


def _replace_value(tree: ast.Module, place: _Position | None, name: str) -> bool:
    """Put `name` in place of the value, in one entry, whose text holds `place`."""
    schedules = table()["beat_schedule"].spellings
    for path, (_, value) in _assignments(tree).items():
        if path[0] not in schedules or value is None:
            continue
        of_one = len(path) > 1
        entries = [value] if of_one else [entry for _, _, entry in _items(value)]
        for entry in entries:
            for _, key, inner in _items(entry):
                if place is not None and _holds(inner, place):
                    stand_in = ast.copy_location(ast.Name(name, ast.Load()), inner)
                    _swap(entry, key, inner, stand_in)
                    return True
    return False


def _holds(node: Node, place: _Position) -> bool:
    line, end_line, column, end_column = place
    if None in (*place, node.end_lineno, node.end_col_offset):
        return False
    starts_before = (node.lineno, node.col_offset) <= (line, column)
    return starts_before and (end_line, end_column) <= (
        node.end_lineno,
        node.end_col_offset,
    )


def _swap(entry: Node, key: Node, old: Node, new: ast.expr) -> None:
    if isinstance(entry, ast.Dict):
        entry.values = [new if value is old else value for value in entry.values]
    elif isinstance(key, ast.keyword):
        key.value = new


def _public(module: ModuleType) -> dict[str, object]:
    """Leave out what is no setting: private names, modules, functions, classes."""
    return {
        name: value
        for name, value in vars(module).items()
        if name in spellings()
        or not (
            name.startswith("_") or isinstance(value, ModuleType) or callable(value)
        )
    }


def _short(file: str) -> str:
    """Give a path from the working directory if it lies there, else in full."""
    path = Path(file)
    return str(
        path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    )


# Apps ------------------------------------------------------------------------------


@runtime_checkable
class App(Protocol):
    """An app object of beatd's, as `-A` looks for it."""

    def beatd_config(self) -> Source:
        """Give the app's config, read afresh at each call."""
        ...


def of_app(target: str, folder: Path) -> Source:
    """Give the config of the app named `target`: `proj`, `proj.celery`, `proj:app`.

    The app's module is imported as any other: its tasks register once.
    """
    _put_on_path(folder)
    app = _find_app(target)
    if isinstance(app, App):
        return replace(app.beatd_config(), app=app)
    try:
        return Source(target, _celery_config(app), app=app)
    except (Exception, SystemExit) as error:  # whatever their code may raise
        raise Unreadable(target, _raised(error, "")) from error


def _find_app(target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    module = import_module(module_name)
    if attribute:
        for part in attribute.split("."):
            if not hasattr(module, part):
                words = [word for word in vars(module) if not word.startswith("_")]
                hint = did_you_mean(part, words)
                problem = Problem(f"{module_name!r} has no {part!r}", hint)
                raise Unreadable(target, problem)
            module = getattr(module, part)
    for candidate in _candidates(module):
        if _is_app(candidate):
            return candidate
    raise Unreadable(
        target,
        Problem(
            f"no app in {target!r}: looked for app, celery and any other beatd.Beatd"
            " or celery.Celery object",
            "name it, as in -A proj:app",
        ),
    )


def _candidates(found: Any) -> Iterator[Any]:
    """Give what may be the app, in Celery's order."""
    yield found
    if not isinstance(found, ModuleType):
        return
    for name in ("app", "celery"):
        yield getattr(found, name, None)
    if hasattr(found, "__path__") and find_spec(f"{found.__name__}.celery"):
        yield from _candidates(import_module(f"{found.__name__}.celery"))
    yield from list(vars(found).values())


def _is_app(value: object) -> bool:
    return not isinstance(value, type) and (
        isinstance(value, App)
        or any(
            (kind.__module__, kind.__name__) == ("celery.app.base", "Celery")
            for kind in type(value).__mro__
        )
    )


def _celery_config(app: Any) -> dict[str, object]:
    """Give what was set in a Celery app, by new names.

    Its task modules are imported first, as `celery beat` does, for they may add
    periodic tasks. The layers of `conf` are: changes by code, the config, defaults.
    """
    app.loader.init_worker()
    app.finalize()
    *layers, _ = app.conf.maps
    written = {
        name: layer[word]
        for layer in reversed(layers)
        for word, name in spellings().items()
        if word in layer
    }
    # Periodic tasks that code adds go into whichever layer has the schedule.
    if app.conf.beat_schedule:
        written["beat_schedule"] = app.conf.beat_schedule
    return written


def import_module(name: str) -> ModuleType:
    """Import a module as any other; Unreadable says in which line it fails, and why."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise Unreadable(name, _no_module(error.name)) from error
        raise Unreadable(name, _raised(error, "")) from error
    except (Exception, SystemExit) as error:  # whatever their code may raise
        raise Unreadable(name, _raised(error, "")) from error


# What went wrong -------------------------------------------------------------------


def _no_module(name: str) -> Problem:
    package, _, last = name.rpartition(".")
    folders = (
        list(sys.modules[package].__path__) if package in sys.modules else sys.path
    )
    shown = ", ".join(_theirs(folders)[:3])
    inside = f" in package {package!r}" if package else ""
    near = did_you_mean(last, (module.name for module in iter_modules(folders)))
    if near and package:
        near = near.replace("'", f"'{package}.", 1)
    return Problem(f"no module named {last!r}{inside} (looked in {shown})", near)


def _theirs(folders: Iterable[str]) -> list[str]:
    """Leave out what Python itself has put on the path, and what is not there."""
    paths = sysconfig.get_paths()
    ours = (paths["stdlib"], paths["platstdlib"], f"{paths['stdlib']}/lib-dynload")
    return [
        str(Path(folder).absolute())
        for folder in folders
        if Path(folder).is_dir() and folder not in (*ours, paths["scripts"])
    ]


def _no_file(path: Path) -> Problem:
    if path.is_dir():
        return Problem(f"{path} is a directory", "name a Python file in it")
    if not path.parent.is_dir():
        return Problem(f"no folder {path.parent}")
    near = did_you_mean(path.name, (other.name for other in path.parent.glob("*.py")))
    return Problem(f"no file {path.name} in {path.parent}", near)


def _raised(error: BaseException, file: str) -> Problem:
    """Say what importing raised, and at which line of `file` (any, if it is empty)."""
    if isinstance(error, SyntaxError) and error.filename:
        start = max(error.offset or 1, 1) - 1
        end = max((error.end_offset or 0) - 1, start + 1)
        place = Place(_short(error.filename), error.lineno or 1, start, end)
        return Problem(f"syntax error: {error.msg}", place=place)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
        or (not file and not frame.filename.startswith(("<", str(_OUR_FOLDER))))
    ]
    last = frames[-1] if frames else None
    there = Place(_short(last.filename), last.lineno or 1) if last else None
    what = "this line" if last else "importing it"
    said = mask(str(error)) or "no reason given"
    if isinstance(error, ModuleNotFoundError):
        return Problem(f"{what} failed: {said}", place=there)
    return Problem(f"{what} raised {type(error).__name__}: {said}", place=there)


_OUR_FOLDER = Path(__file__).parent
