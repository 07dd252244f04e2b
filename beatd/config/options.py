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


def environment(around: Mapping[str, str]) -> Mapping[str, str]:
    """Return the process's environment, and the broker's URL from where secrets are.

    What is `around` the process counts where its own environment has nothing.

    systemd hands a credential `broker_url` over as a file, `default` meaning none; a
    container names the file in $BEATD_BROKER_URL_FILE.
    """
    environ = {**around, **os.environ}
    named = environ.get("BEATD_BROKER_URL_FILE")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(named) if named else Path(folder, "broker_url") if folder else None
    if path is None:
        return environ
    try:
        if path.name == "broker_url" and not path.exists():
            return environ
        url = path.read_text().strip()
    except OSError as error:
        way = "\n  try: sudo beatd ..." if isinstance(error, PermissionError) else ""
        problem = f"broker_url: {error.strerror}{way}"
        raise ConfigError(str(path), [problem]) from error
    if url != "default":
        environ.setdefault("CELERY_BROKER_URL", url)
    return environ
