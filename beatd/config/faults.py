"""Why a config cannot be read: what was looked for where, and what it raised."""

import sys
import sysconfig
import traceback
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from pkgutil import iter_modules

from beatd.config.settings import Place, Problem, did_you_mean, mask
from beatd.text import one_line


class Unreadable(Exception):
    """The config `source` cannot be read, because of `problem`."""

    def __init__(self, source: str, problem: Problem) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


def no_module(name: str) -> Problem:
    """Return the problem that no module has that name, with a similar name if any."""
    package, _, last = name.rpartition(".")
    parent = sys.modules.get(package)
    if parent is not None and not hasattr(parent, "__path__"):
        return Problem(f"{package!r} is a module: it has no modules, and no {last!r}")
    folders = list(parent.__path__) if parent is not None else sys.path
    shown = ", ".join(_theirs(folders)[:3])
    inside = f" in package {package!r}" if package else ""
    near = did_you_mean(last, (module.name for module in iter_modules(folders)))
    if near and package:
        near = near.replace("'", f"'{package}.", 1)
    return Problem(f"no module named {last!r}{inside} (looked in {shown})", near)


def _theirs(folders: Iterable[str]) -> list[str]:
    """Return the folders that exist and are not Python's own."""
    paths = sysconfig.get_paths()
    ours = (paths["stdlib"], paths["platstdlib"], f"{paths['stdlib']}/lib-dynload")
    return [
        str(Path(folder).absolute())
        for folder in folders
        if Path(folder).is_dir() and folder not in (*ours, paths["scripts"])
    ]


def no_file(path: Path) -> Problem:
    """Return the problem that there is no such file, with a similar name if any."""
    if path.is_dir():
        return Problem(f"{path} is a directory", "name a Python file in it")
    if not path.parent.is_dir():
        return Problem(f"no folder {path.parent}")
    near = did_you_mean(path.name, (other.name for other in path.parent.glob("*.py")))
    return Problem(f"no file {path.name} in {path.parent}", near)


def raised(error: BaseException, file: str) -> Problem:
    """Return what importing raised, and at which line of the user's own code.

    `file` is the one that was executed; the line may be of a module that it imports.
    """
    if isinstance(error, SyntaxError) and error.filename:
        start = max(error.offset or 1, 1) - 1
        end = max((error.end_offset or 0) - 1, start + 1)
        place = Place(short(error.filename), error.lineno or 1, start, end)
        return Problem(f"syntax error: {error.msg}", place=place)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [one for one in frames if one.filename == file or is_theirs(one.filename)]
    last = theirs[-1] if theirs else None
    there = Place(short(last.filename), last.lineno or 1) if last else None
    what = "this line" if last else "importing it"
    reason = mask(_text_of(error)) or "no reason given"
    if isinstance(error, ModuleNotFoundError):
        return Problem(f"{what} failed: {reason}", place=there)
    return Problem(f"{what} raised {type(error).__name__}: {reason}", place=there)


@lru_cache(maxsize=4096)
def is_theirs(file: str) -> bool:
    """Return whether a file is the user's own, neither installed nor Python's."""
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    ours = any(map(path.is_relative_to, (_OUR_FOLDER, *_PYTHON)))
    return not (file.startswith("<") or installed or ours)


def raised_by_reading(error: BaseException) -> str:
    """Return what reading a value has raised: code of the value's own class, say."""
    reason = mask(one_line(_text_of(error))) or "no reason given"
    return f"reading it raised {type(error).__name__}: {reason}"


def raised_by_calling(name: str, error: BaseException) -> str:
    """Return what calling a task of this name has raised."""
    reason = mask(one_line(_text_of(error))) or "no reason given"
    return f"calling {name} raised {type(error).__name__}: {reason}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # foreign code again
        return ""


_OUR_FOLDER = Path(__file__).parent.parent
"""All of beatd: a config's error is never shown at a line in here."""

_PYTHON = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def short(file: str) -> str:
    """Return a path from the working directory if it lies there, else in full."""
    path = Path(file)
    return str(
        path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    )
