"""Writes the entries of another scheduler as a config module."""

from pathlib import Path
from shlex import quote

from beatd.cli.output import Failure, Screen
from beatd.cli.usage import NOTHING
from beatd.config.loading import Config
from beatd.migrate.config_text import module_text
from beatd.migrate.found import Found, FoundEntry
from beatd.text import counted


class NothingToWrite(Failure):
    """The config has all entries already, or there are none."""

    exit_code = NOTHING


def write_entries(path: Path, config: Config, found: Found, out: Screen) -> None:
    """Write those entries that the config lacks; say what was written.

    Raises Failure for a file that is there, and where there is nothing to write.
    """
    known = config.settings.beat_schedule
    entries = [one for one in found.entries if one.name not in known]
    entries += [FoundEntry("?", notes=[problem]) for problem in found.problems]
    if not entries:
        number = counted(len(found.entries), "entry")
        raise NothingToWrite(f"{found.source}: {number}, and the config lacks none")
    zone = str(config.settings.zone)
    settings = {} if zone == "UTC" else {"timezone": zone}
    title = f"Entries of {found.source}.\n\n{_use(path, config)}"
    write_module(path, module_text(title, settings, entries))
    left_out = sum(one.written is None for one in entries)
    more = f", {left_out} of them as a comment that says why" if left_out else ""
    out.say(f"wrote {path}: {counted(len(entries), 'entry')}{more}")
    out.say(question(path))


def question(path: Path) -> str:
    """Return what to do with a module that was written."""
    return f"is it right?  beatd check --config {quote(str(path))}"


def write_module(path: Path, text: str) -> None:
    """Write a new file; raise Failure if there is one, or it cannot be made."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        problem = f"{path} is there already, and is left as it is"
        raise Failure(f"{problem}\n  name another file, or remove it") from error
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error


def _use(path: Path, config: Config) -> str:
    """Return how the module is used, for its docstring."""
    if config.source.app is None:
        return "A config of its own for `beatd --config`, or to be imported by yours."
    name = path.stem
    return (
        "In the module of the app:\n\n"
        f"    from {name} import beat_schedule\n"
        "    app.conf.beat_schedule |= beat_schedule"
    )
