"""Crontabs, of users and of the system, as entries of the built-in task beatd.run."""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from beatd.config.builtin_tasks import RUN
from beatd.errors import ScheduleError
from beatd.migrate.found import FoundEntry
from beatd.schedules import cron
from beatd.schedules.zones import zone_of

Part = FoundEntry | str
"""An entry, or the text of a comment."""

_ASSIGNMENT = re.compile(r"""\s*(["']?)([A-Za-z_]\w*)\1\s*=\s*(.*?)\s*""", re.DOTALL)
_RANDOM = re.compile(r"(\d*)~(\d*)")
_UNESCAPED_PERCENT = re.compile(r"(?<!\\)%")
_OF_SHELLS = frozenset("|&;<>()$`\\*?[]#~{}!\n")
_WORDS_OF_SHELLS = frozenset(
    {
        *(".", ":", "[", "[[", "case", "cd", "command", "eval", "exec", "exit"),
        *("export", "for", "if", "read", "set", "source", "test", "time", "times"),
        *("trap", "type", "ulimit", "umask", "unset", "until", "wait", "while"),
    }
)

_NO_MAIL = "beatd sends no mail: a run's output is its result, and a failure is logged"
_UNUSED: Mapping[str, str] = {
    "MAILTO": _NO_MAIL,
    "MAILFROM": _NO_MAIL,
    "CONTENT_TYPE": _NO_MAIL,
    "CONTENT_TRANSFER_ENCODING": _NO_MAIL,
    "LOGNAME": "that is the user as whom the worker runs",
    "USER": "that is the user as whom the worker runs",
}
"""Variables that mean something to cron, and nothing here."""

_REBOOT = "beatd does not know of boots: a unit of systemd is the place for it"


class Unsaid(ValueError):
    """A line that no entry can say, and why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the lines above a job say of it."""

    env: Mapping[str, str] = field(default_factory=dict)
    shell: str = "/bin/sh"
    zone: str = ""
    delay: int = 0
    """Minutes over which cronie spreads the job."""


@dataclass(slots=True)
class Crontab:
    """A crontab as it is read, line by line.

    `home` returns the home of a user, None meaning whose crontab it is: there cron runs
    its commands. In a `system` crontab each job names its user.
    """

    home: Callable[[str | None], str | None]
    system: bool = False
    users: set[str] = field(default_factory=set)
    """The users that its jobs name."""
    _now: Setting = field(default=Setting(), init=False)
    _names: Counter[str] = field(default_factory=Counter, init=False)

    def parts(self, data: bytes) -> Iterator[Part]:
        """Yield what stands in the config for each line but blank ones."""
        for number, raw in enumerate(data.split(b"\n"), 1):
            try:
                line = raw.decode().strip(" \t\r")
            except UnicodeDecodeError:
                shown = raw.decode(errors="backslashreplace")
                yield f"{shown}\n  left out: it is not in UTF-8"
                continue
            if line:
                yield from self._parts_of(line, number)

    def _parts_of(self, line: str, number: int) -> Iterator[Part]:
        if line.startswith("#"):
            yield line.removeprefix("#").strip()
            return
        try:
            if (assigned := _ASSIGNMENT.fullmatch(line)) and not _is_job(line):
                self._assign(assigned[2], _unquoted(assigned[3]))
            else:
                yield self._job(line, number)
        except Unsaid as error:
            yield f"{line}\n  left out: {error}"

    def _assign(self, name: str, value: str) -> None:
        """Note a variable for the jobs that follow; raise Unsaid."""
        if name in _UNUSED:
            raise Unsaid(_UNUSED[name])
        now = self._now
        match name:
            case "SHELL":
                self._now = replace(now, shell=value)
            case "CRON_TZ":
                try:
                    self._now = replace(now, zone=str(zone_of(value)))
                except ScheduleError as error:
                    raise Unsaid(error.problem) from error
            case "RANDOM_DELAY" if value.isdecimal():
                self._now = replace(now, delay=int(value))
            case _:
                self._now = replace(now, env={**now.env, name: value})

    def _job(self, line: str, number: int) -> FoundEntry:
        """Return the entry for a job; raise Unsaid."""
        schedule, rest = _schedule(line)
        user = None
        if self.system:
            user, _, rest = rest.partition(" ")
            self.users.add(user)
            rest = rest.strip()
        if not rest:
            raise Unsaid("it has no command")
        command, *lines = _UNESCAPED_PERCENT.split(rest)
        command = command.replace(r"\%", "%").strip()
        kwargs = self._kwargs(command, user)
        if lines:
            text = "\n".join(one.replace(r"\%", "%") for one in lines)
            kwargs["input"] = text if text.endswith("\n") else text + "\n"
        written: dict[str, object] = {"task": RUN, "schedule": schedule}
        written["kwargs"] = kwargs
        if user is not None:
            written["options"] = {"queue": queue_of(user)}
        if self._now.zone:
            written["timezone"] = self._now.zone
        if self._now.delay:
            written["jitter"] = self._now.delay * 60
        return FoundEntry(self._name(command, number), written=written)

    def _kwargs(self, command: str, user: str | None) -> dict[str, object]:
        kwargs: dict[str, object]
        words = _words(command)
        if words is not None:
            kwargs = {"command": words}
        elif self._now.shell == "/bin/sh":
            kwargs = {"command": command, "shell": True}
        else:
            kwargs = {"command": [self._now.shell, "-c", command]}
        if folder := self._now.env.get("HOME") or self.home(user):
            kwargs["cwd"] = folder
        if self._now.env:
            kwargs["env"] = dict(self._now.env)
        return kwargs

    def _name(self, command: str, number: int) -> str:
        """Return a name: the first program's, and a number from the second one on."""
        parts = [part.split() for part in re.split(r";|&&|\|", command)]
        programs = [PurePosixPath(words[0]).name for words in parts if words]
        first = next(filter(_is_program, programs), f"line-{number}")
        self._names[first] += 1
        times = self._names[first]
        return first if times == 1 else f"{first}-{times}"


def queue_of(user: str) -> str:
    """Return the queue for jobs of one user: a worker of that user's takes from it."""
    return f"cron-{user}"


def _is_program(word: str) -> bool:
    return bool(re.fullmatch(r"[\w.+-]+", word)) and word not in _WORDS_OF_SHELLS


def _is_job(line: str) -> bool:
    """Return whether a line with `=` begins as a job does: no variable is so called."""
    return line[0] in "@*-" or line[0].isdigit()


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _schedule(line: str) -> tuple[str, str]:
    """Return a job's schedule, and what stands behind it; raise Unsaid."""
    line = line.removeprefix("-")  # cronie: do not log it
    if line.startswith("@"):
        alias, *rest = line.split(None, 1)
        schedule = alias.lower()
        if schedule == "@reboot":
            raise Unsaid(_REBOOT)
    else:
        words = line.split(None, 5)
        schedule, rest = " ".join(words[:5]), words[5:]
        if len(words) < 5:
            raise Unsaid("it is no job of cron: five fields and a command are needed")
    schedule = _RANDOM.sub(_drawn, schedule)
    try:
        cron(schedule)
    except ScheduleError as error:
        raise Unsaid(str(error)) from error
    return schedule, rest[0] if rest else ""


def _drawn(random: re.Match[str]) -> str:
    """Return `H(0-30)` for cronie's `0~30`: drawn from the entry's name, so it stays.

    Without bounds all numbers of the field count: `H`.
    """
    least, most = random.groups()
    if least and most:
        return f"H({least}-{most})"
    if least or most:
        raise Unsaid(f"say both bounds of {random[0]!r}: H(0-59) draws a number")
    return "H"


def _words(command: str) -> list[str] | None:
    """Return a command's program and arguments; None if a shell has to read it."""
    if _OF_SHELLS & set(command):
        return None
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that does not end
        return None
    if not words or "=" in words[0] or words[0] in _WORDS_OF_SHELLS:
        return None
    return words
