"""The options of the command line and the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from beatd.config.loading import Wanted
from beatd.config.settings import table
from beatd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line; None where one is not given."""

    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings given there, by their new names."""
    app: str | None = None
    config: str | None = None
    loader: str | None = None
    no_color: bool | None = None
    quiet: bool | None = None
    debug: bool | None = None
    loglevel: str | None = None
    log_format: str | None = None
    logfile: str | None = None
    pidfile: str | None = None
    uid: str | None = None
    gid: str | None = None
    umask: str | None = None
    executable: str | None = None
    detach: bool | None = None
    strict: bool | None = None
    hostname: str | None = None
    autoscale: tuple[int, int] | None = None
    autoscale_keepalive: float | None = None
    queues: str | None = None
    exclude_queues: str | None = None
    include: str | None = None
    heartbeat_interval: float | None = None
    around: Mapping[str, str] = field(default_factory=dict)
    """Variables that count where the process's own environment has none."""
    schedules: bool = True
    """Whether the process is a scheduler, or is about one: not a worker alone."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Options":
        """Return the options among `given`; what one command alone has is left out.

        An option that stands for a setting is named in the setting's row.
        """
        plain = {line.name for line in fields(cls)} - {"settings", "schedules"}
        words = {name: given[name] for name in plain & given.keys()}
        return cls(_settings_in(given), **words)

    def wanted(self) -> Wanted:
        """Return which config is meant."""
        return Wanted(
            config=self.config,
            app=self.app,
            environ=environment(self.around),
            command_line=self.settings,
            unjudged=() if self.schedules else ("beat_scheduler",),
        )


def _settings_in(given: Mapping[str, Any]) -> dict[str, object]:
    found = {
        row.name: row.switch.meant_by(given.get(row.switch.name))
        for row in table().values()
        if row.switch
    }
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Told:
    """What a new interpreter is told, to do as the worker's own process did."""

    path: list[str]
    """Where that looks for modules."""
    options: Options
    modules: list[str]
    """Those that remote control asked for."""


_SECRETS: Mapping[str, tuple[str, str]] = {
    "broker_url": ("BEATD_BROKER_URL_FILE", "CELERY_BROKER_URL"),
    "result_backend": ("BEATD_RESULT_BACKEND_FILE", "CELERY_RESULT_BACKEND"),
}
"""By name, the settings that may be in a file of their own, as systemd's credentials.

The variable that names the file, and the one that counts before it.
"""


def environment(around: Mapping[str, str]) -> Mapping[str, str]:
    """Return the process's environment, and the URLs from where secrets are.

    What is `around` the process counts where its own environment has nothing.

    systemd hands a credential over as a file of the setting's name, `default` meaning
    none; a container names the file in a variable. Raises ConfigError.
    """
    environ = {**around, **os.environ}
    for name, (_, variable) in _SECRETS.items():
        if (secret := _secret(name, environ)) and not environ.get(variable):
            environ[variable] = secret
    return environ


def secret_files(folder: Path, named: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name files of secrets, else what a folder has."""
    found: dict[str, str] = {}
    for name, (variable, _) in _SECRETS.items():
        if named.get(variable):
            found[variable] = named[variable]
        elif _may_be_there(folder / name):
            found[variable] = str(folder / name)
    return found


def _may_be_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # such as a folder that this user may not look into
        return True
    return True


def _secret(name: str, environ: Mapping[str, str]) -> str:
    """Return what a file of secrets has of a setting; empty if that is not set."""
    variable, _ = _SECRETS[name]
    named, folder = environ.get(variable), environ.get("CREDENTIALS_DIRECTORY")
    if not (named or folder):
        return ""
    path = Path(named) if named else Path(folder or "", name)
    way = f"write the URL there, or `default` if {name} is not to be set"
    try:
        secret = path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not named:  # a credential need not be there
            return ""
        problem = f"{error.strerror}; ${variable} names it"
        way += f"; or unset ${variable}"
    except PermissionError as error:
        problem, way = f"{error.strerror}", "sudo beatd ..."
    except OSError as error:
        problem = f"{error.strerror}"
    except UnicodeDecodeError:
        problem = "this is no text in UTF-8"
    else:
        if secret:
            return "" if secret == "default" else secret
        problem = "the file is empty"
    raise ConfigError(str(path), [f"{name}: {problem}", f"try: {way}"])
