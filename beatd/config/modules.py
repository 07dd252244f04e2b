"""Modules and files of a config, executed or imported.

A config module is executed afresh each time, from its text as it is now: not from
`sys.modules`, and not from a `.pyc`, which may be out of date after two quick saves.
"""

import ast
import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import (
    decode_source,
    find_spec,
    module_from_spec,
    spec_from_file_location,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeAlias

from beatd.config.faults import Unreadable, no_file, no_module, raised, short
from beatd.config.settings import Problem, did_you_mean, spellings, table
from beatd.config.source import Node, Raised, Source, assignments, items


def of_name(name: str) -> Source:
    """Execute what a name means: `mod`, or an object in it, `mod:conf` or `mod.conf`.

    As in Celery a module comes before an attribute.
    """
    module, separator, attribute = name.partition(":")
    if not separator:
        module, _, attribute = name.rpartition(".")
        if not module or not _is_attribute(name):
            return of_module(name)
    found = of_module(module)
    value: Any = sys.modules[module]
    for part in attribute.split("."):
        if not hasattr(value, part):
            near = did_you_mean(part, (word for word in dir(value) if word[0] != "_"))
            raise Unreadable(name, Problem(f"{module!r} has no {part!r}", near))
        value = getattr(value, part)
    if isinstance(value, ModuleType):
        return of_module(value.__name__)
    try:
        written = values_of(value)
    except TypeError as error:
        raise Unreadable(name, Problem(str(error))) from None
    within = tuple(attribute.split("."))
    return Source(name, written, found.file, found.text, within=within)


def _is_attribute(name: str) -> bool:
    """Return whether no module has this name, as what it would lie in is no package."""
    try:
        find_spec(name)
    except ModuleNotFoundError as error:
        return error.name == name
    except (Exception, SystemExit):  # the user's code, which `of_module` reports
        return False
    return False


def values_of(value: Any) -> dict[str, object]:
    """Return the settings that an object has: a dict, or an object's attributes.

    Raises TypeError for what cannot have any.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if callable(value) and not isinstance(value, type):
        raise TypeError("it is a function: give what it returns a name, and name that")
    words = [word for word in dir(value) if word.isupper() or word in spellings()]
    if isinstance(value, str | int | float | list | tuple | set):
        kind = type(value).__name__
        raise TypeError(f"expected a dict, a class or an object with settings: {kind}")
    return {word: getattr(value, word) for word in words}


def of_module(name: str) -> Source:
    """Execute the module `name` afresh."""
    importlib.invalidate_caches()
    before = sys.modules.pop(name, None)
    try:
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            raise Unreadable(name, no_module(name))
        return _execute(name, spec)
    except Unreadable:
        raise
    except ModuleNotFoundError as error:
        # Missing is a package in which `name` lies, or a module that one imports.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise Unreadable(name, no_module(error.name)) from error
        raise Unreadable(name, raised(error, "")) from error
    except (Exception, SystemExit) as error:  # whatever the user's package may raise
        raise Unreadable(name, raised(error, "")) from error
    finally:
        if name not in sys.modules and before is not None:
            sys.modules[name] = before


def of_file(name: str, folder: Path) -> Source:
    """Execute the file `name` afresh; `folder` is where a relative path begins."""
    path = folder / Path(name).expanduser()
    try:
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Unreadable(name, no_file(path)) from None
    except OSError as error:
        problem = Problem(f"{path} cannot be read: {error.strerror}")
        raise Unreadable(name, problem) from error
    put_on_path(path.parent)
    spec = spec_from_file_location(path.stem, path)
    if spec is None:
        raise Unreadable(name, Problem(f"{path} is no Python file"))
    before = sys.modules.pop(path.stem, None)
    try:
        return _execute(name, spec)
    finally:
        if path.stem not in sys.modules and before is not None:
            sys.modules[path.stem] = before


def _execute(name: str, spec: ModuleSpec) -> Source:
    """Run a module's text as it is now; on failure, remove it from `sys.modules`."""
    module = module_from_spec(spec)
    file = spec.origin or ""
    text, looks_back = "", True
    sys.modules[spec.name] = module
    try:
        if isinstance(spec.loader, SourceFileLoader):
            text = decode_source(Path(file).read_bytes())
            looks_back = _looks_back(_run(text, file, vars(module)))
        elif spec.loader is not None:
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever their code may raise
        del sys.modules[spec.name]
        raise Unreadable(name, raised(error, file)) from error
    parent, _, child = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    names = _public(module)
    found = Source(name, names, short(file), text)
    if looks_back:
        return found
    return replace(found, let_go=partial(_take_out, module, names))


def _take_out(module: ModuleType, names: dict[str, object], name: str) -> None:
    """Remove a name from a module, who looks for it there is told why.

    Of a dict only the keys are kept, in `names`.
    """

    def missing(asked: str) -> object:
        words = f"module {module.__name__!r} has no attribute {asked!r}"
        if asked == name:
            words += (
                " any more: beatd has read it, and does not keep it twice; a function"
                " of this module that names it has it kept"
            )
        raise AttributeError(words, name=asked, obj=module)

    if "__getattr__" not in vars(module):
        delattr(module, name)
        value = names[name]
        names[name] = dict.fromkeys(value) if isinstance(value, dict) else None
        vars(module)["__getattr__"] = missing


def _looks_back(code: CodeType, *, is_module: bool = True) -> bool:
    """Return whether a function of a module may look at its schedule, by the names."""
    names = {*table()["beat_schedule"].spellings, *_ALL_NAMES}
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return (not is_module and not names.isdisjoint(code.co_names)) or any(
        _looks_back(one, is_module=False) for one in inner
    )


_ALL_NAMES = {"globals", "vars", "modules", "import_module", "eval", "exec"}
"""With these a function reaches what it does not name."""


def _run(text: str, file: str, names: dict[str, Any]) -> CodeType:
    """Execute a config's text; return its code.

    A value that raises, `crontab(minute=61)` say, makes its own entry unusable and no
    other: the value is replaced by a Raised, and the text is executed once more.
    """
    tree = None
    code = compile(text, file, "exec", dont_inherit=True)
    spoiled = 0
    while True:
        try:
            exec(code, names)
        except Exception as error:  # the config's own code
            tree = tree or ast.parse(text)
            stand_in = f"_raised_{spoiled}"
            if not _replace_value(tree, _position(error, file), stand_in):
                raise
            where = _elsewhere(error, file)
            names[stand_in] = Raised(error.with_traceback(None), where)
            code = compile(tree, file, "exec", dont_inherit=True)
            spoiled += 1
        else:
            return code


def _elsewhere(error: Exception, file: str) -> str:
    """Return where an error was raised, if that was not in this file."""
    place = raised(error, file).place
    return f" ({place})" if place and place.file != short(file) else ""


_Position: TypeAlias = tuple[int | None, int | None, int | None, int | None]
"""Line, end line, column and end column, as code objects have them."""


def _position(error: Exception, file: str) -> _Position | None:
    """Return where in the module's own code the error was raised."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == file and code.co_name == "<module>":
            return list(code.co_positions())[trace.tb_lasti // 2]
        trace = trace.tb_next
    return None


def _replace_value(tree: ast.Module, place: _Position | None, name: str) -> bool:
    """Put `name` in place of the entry's value in whose text `place` lies."""
    schedules = table()["beat_schedule"].spellings
    for path, (_, value) in assignments(tree).items():
        if path[0] not in schedules or value is None:
            continue
        of_one = len(path) > 1
        entries = [value] if of_one else [entry for _, _, entry in items(value)]
        for entry in entries:
            for _, key, inner in items(entry):
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
    """Return a module's names and values without private ones, modules and callables.

    Names of settings stay in any case.
    """
    return {
        name: value
        for name, value in vars(module).items()
        if name in spellings()
        or not (
            name.startswith("_") or isinstance(value, ModuleType) or callable(value)
        )
    }


def import_module(name: str) -> ModuleType:
    """Import a module as any other; Unreadable says at which line it fails, and why."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise Unreadable(name, no_module(error.name)) from error
        raise Unreadable(name, raised(error, "")) from error
    except (Exception, SystemExit) as error:  # whatever their code may raise
        raise Unreadable(name, raised(error, "")) from error


def put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
