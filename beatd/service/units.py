"""The units of systemd that come with beatd, made for where it is installed."""

import os
import re
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

UNITS = ("beatd.service", "beatd-worker@.service", "beatd.target", "beatd.socket")

OPTIONS = "beatd.default"
"""What is installed as `/etc/default/beatd`, unless there is one."""

_WRITTEN_PROGRAM = "/opt/beatd/bin/beatd"
"""What the units call as they are written."""

_HIDDEN = {
    "ProtectHome=yes": ("/home", "/root", "/run/user"),
    "PrivateTmp=yes": ("/tmp", "/var/tmp"),
}
"""Folders that the units do not see, by what keeps them from it."""

_MOST_LINKS = 40


def shipped() -> Mapping[str, Path]:
    """Return by name the units, the drop-ins and the options that come with beatd."""
    folder = Path(__file__).parents[1] / "systemd"
    if not folder.is_dir():  # not installed, but run from the project's folder
        folder = Path(__file__).parents[2] / "systemd"
    examples = sorted((folder / "examples").glob("*.conf"))
    named = [*(folder / name for name in (*UNITS, OPTIONS)), *examples]
    return {path.name: path for path in named}


def program_of(prefix: str | None) -> Path:
    """Return the program in an environment of Python; without one, of this process."""
    folder = Path(prefix, "bin") if prefix else Path(sysconfig.get_path("scripts"))
    return (Path.cwd() / folder / "beatd").absolute()


@dataclass(frozen=True, slots=True)
class Site:
    """Where units are installed, and which program they call."""

    program: Path
    user: bool = False
    """Whether they are for the service manager of a user."""
    root: Path = Path("/")
    """Where the file system begins that they are installed in."""

    @property
    def folder(self) -> Path:
        """The folder of units."""
        where = _config_home() / "systemd/user" if self.user else "/etc/systemd/system"
        return self.inside(where)

    @property
    def options(self) -> Path:
        """The file that the units read their environment from."""
        where = _config_home() / "beatd/environment" if self.user else _DEFAULT
        return self.inside(where)

    def inside(self, path: str | Path) -> Path:
        """Return where an absolute path leads under the root."""
        return self.root / Path(path).relative_to("/")

    def made(self, name: str) -> str:
        """Return the text of what comes with beatd, for this place."""
        text = shipped()[name].read_text().replace(_WRITTEN_PROGRAM, str(self.program))
        return _for_user(text) if self.user and name in UNITS else text

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield what there is to install, and its text."""
        for name in UNITS:
            yield self.folder / name, self.made(name)
        if not self.options.exists():
            yield self.options, self.made(OPTIONS)

    def hidden(self) -> str:
        """Return why the units could not start the program; empty if they can see it.

        A program of Python's is a file that names an interpreter; both may be links.
        """
        if self.user:
            return ""
        for path in self._needed():
            for why, folders in _HIDDEN.items():
                for folder in folders:
                    if path.is_relative_to(folder):
                        needs = "" if path == self.program else f" needs {path}"
                        return f"{self.program}{needs}: units see no {folder} ({why})"
        return ""

    def _needed(self) -> Iterator[Path]:
        """Yield the program, its interpreter, and what they are links to."""
        todo = [self.program]
        for _ in range(_MOST_LINKS):
            if not todo:
                return
            path = Path(os.path.normpath(todo.pop()))
            yield path
            place = self.inside(path)
            if place.is_symlink():
                todo.append(path.parent / place.readlink())
            elif path.name == self.program.name and place.is_file():
                todo += _interpreter(place)


_DEFAULT = "/etc/default/beatd"


def _interpreter(program: Path) -> list[Path]:
    with program.open("rb") as file:
        first = file.readline(512)
    named = re.match(rb"#!\s*(/\S+)", first)
    return [Path(os.fsdecode(named[1]))] if named else []


def _config_home() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


# For the service manager of a user ------------------------------------------------

_FOR_SYSTEM = re.compile(
    r"(?:DynamicUser|User|Group|LoadCredential|SetCredential|Protect\w+|Private\w+"
    r"|DevicePolicy|ProcSubset|CapabilityBoundingSet|AmbientCapabilities|RemoveIPC"
    r"|OOMScoreAdjust|ConfigurationDirectory)=|#|(?:Wants|After)=(?!.*beatd)"
)
"""How lines begin that a user's service manager has not the rights or units for. The
folder of the config is there, and up to systemd 253 it is that of the state as well."""

_USERS: Mapping[str, str] = {
    "/etc/default/beatd-worker-": "%E/beatd/environment-",
    _DEFAULT: "%E/beatd/environment",
    "/etc/beatd/": "%E/beatd/",
    "/run/beatd.sock": "%t/beatd.sock",
    "multi-user.target": "default.target",
    "network-online.target time-sync.target redis-server.service ": "",
    "[Service]": "[Service]\nEnvironment=CREDENTIALS_DIRECTORY=%E/beatd",
    "/usr/bin/env -u CREDENTIALS_DIRECTORY ": "",
}
"""What stands for what in the units of a user."""

_FIRST = "# What `beatd systemd install --user` makes of the system's unit.\n"


def _for_user(text: str) -> str:
    """Return a unit with the paths of a user, and without what needs privileges."""
    kept = [line for line in text.splitlines() if not _FOR_SYSTEM.match(line)]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept))
    for system, users in _USERS.items():
        text = text.replace(system, users)
    return f"{_FIRST}{text.strip()}\n"
