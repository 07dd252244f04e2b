"""What the units of this host run: their options, without those being given again."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from beatd.config.places import DEFAULT_MODULE
from beatd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Host:
    """The files that the system's units go by, under the root of a file system."""

    root: Path = Path("/")

    @property
    def defaults(self) -> Path:
        """The file from which the units have their environment."""
        return self.root / "etc/default/beatd"

    @property
    def config(self) -> Path:
        """The config that the units take unless that file names another."""
        return self.root / "etc/beatd/config.py"

    @property
    def schedule_file(self) -> Path:
        """The schedule file that the units name on their command lines."""
        return self.root / "var/lib/beatd/schedule.db"

    @property
    def credentials(self) -> Path:
        """The folder of the files that systemd hands to the services as credentials."""
        return self.root / "etc/beatd"

    def is_meant(self, environ: Mapping[str, str]) -> bool:
        """Return whether the units are what one asks about who names no config.

        A config that the environment names, or that is in the working directory, is
        meant before them.
        """
        if environ.get("CELERY_CONFIG_MODULE"):
            return False
        folder = Path.cwd()
        here = (folder / f"{DEFAULT_MODULE}.py", folder / DEFAULT_MODULE)
        if any(map(_is_there, here)) or find_spec(DEFAULT_MODULE):
            return False
        return _is_there(self.defaults) or _is_there(self.config)

    def variables(self) -> dict[str, str]:
        """Return what the units find in their environment; of others nothing is kept.

        Empty where this user may not read the file. Raises ConfigError.
        """
        try:
            text = self.defaults.read_text()
        except (FileNotFoundError, PermissionError):
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(self.defaults), [f"{error}"]) from error
        found = {"BEATD_CONFIG": str(self.config)}
        found |= assignments(text)
        return {name: value for name, value in found.items() if name[:6] == "BEATD_"}

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """Return the words with which the unit of the scheduler begins."""
        try:
            more = shlex.split(variables.get("BEATD_OPTS", ""))
        except ValueError as error:
            raise ConfigError(str(self.defaults), [f"BEATD_OPTS: {error}"]) from error
        return ["--schedule-filename", str(self.schedule_file), *more]


def _is_there(path: Path) -> bool:
    """Return whether there is something that this user may see."""
    try:
        return path.exists()
    except PermissionError:
        return False


_BLANKS, _COMMENT, _ESCAPED = " \t\r", "#;", '"\\`$'


def assignments(text: str) -> dict[str, str]:
    """Return by name what systemd reads in an `EnvironmentFile`.

    As in a shell, values may be in quotes and a backslash takes the sense from the next
    character, here also that of a line's end; a `$` has none. Lines that begin with `#`
    or `;`, or have no `=`, say nothing.
    """
    found: dict[str, str] = {}
    signs = iter(text)
    for sign in signs:
        if sign in _BLANKS or sign == "\n":
            continue
        if sign in _COMMENT:
            _skip(signs)
            continue
        name = sign
        for sign in signs:
            if sign in "=\n":
                break
            name += sign
        if sign == "=":
            found[name.strip()] = _value(signs)
    return found


def _skip(signs: Iterator[str]) -> None:
    """Go to the end of a comment: that of a line without a backslash at its end."""
    for sign in signs:
        if sign == "\\":
            next(signs, "")
        elif sign == "\n":
            return


def _value(signs: Iterator[str]) -> str:
    """Return a value, and go to the end of its line."""
    value, kept = "", 0  # what is kept of it if only blanks follow
    is_plain = False
    for sign in signs:
        if sign == "\n":
            break
        if sign == "\\":
            following = next(signs, "")
            if following != "\n":
                value += following
            is_plain, kept = True, len(value)
        elif not is_plain and sign in "'\"":
            value += _quoted(signs, sign)
            kept = len(value)
        elif is_plain or sign not in _BLANKS:
            value += sign
            is_plain = True
            if sign not in _BLANKS:
                kept = len(value)
    return value[:kept]


def _quoted(signs: Iterator[str], quote: str) -> str:
    """Return what is in quotes, and go behind them."""
    value = ""
    for sign in signs:
        if sign == quote:
            break
        if sign == "\\" and quote == '"':
            following = next(signs, "")
            if following in _ESCAPED:
                value += following
            elif following != "\n":
                value += sign + following
        else:
            value += sign
    return value
