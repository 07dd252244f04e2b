"""What the command line and the environment said."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beatd.config.loading import Wanted
from beatd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said; None where it said nothing."""

    app: str | None = None
    config: str | None = None
    broker: str | None = None
    result_backend: str | None = None
    loader: str | None = None
    no_color: bool | None = None
    quiet: bool | None = None
    debug: bool | None = None
    schedule_filename: str | None = None
    loglevel: str | None = None
    logfile: str | None = None
    pidfile: str | None = None
    uid: str | None = None
    gid: str | None = None
    umask: str | None = None
    executable: str | None = None
    detach: bool | None = None
    strict: bool | None = None
    scheduler: str | None = None
    max_interval: float | None = None
    hostname: str | None = None
    concurrency: int | str | None = None
    pool: str | None = None
    autoscale: tuple[int, int] | None = None
    autoscale_keepalive: float | None = None
    queues: str | None = None
    exclude_queues: str | None = None
    include: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    prefetch_multiplier: int | None = None
    disable_prefetch: bool | None = None
    task_events: bool | None = None
    without_gossip: bool | None = None
    without_mingle: bool | None = None
    without_heartbeat: bool | None = None
    heartbeat_interval: float | None = None
    statedb: str | None = None
    pool_start_method: str | None = None

    def settings(self) -> dict[str, object]:
        """Give what was said as settings, by their new names."""
        said = {
            "broker_url": self.broker,
            "result_backend": self.result_backend,
            "beat_schedule_filename": self.schedule_filename,
            "beat_scheduler": self.scheduler,
            "beat_max_loop_interval": self.max_interval,
            "worker_concurrency": self.concurrency,
            "worker_pool": self.pool,
            "worker_pool_start_method": self.pool_start_method,
            "task_time_limit": self.time_limit,
            "task_soft_time_limit": self.soft_time_limit,
            "worker_max_tasks_per_child": self.max_tasks_per_child,
            "worker_max_memory_per_child": self.max_memory_per_child,
            "worker_prefetch_multiplier": self.prefetch_multiplier,
            "worker_disable_prefetch": self.disable_prefetch or None,
            "worker_send_task_events": self.task_events or None,
            "worker_enable_gossip": False if self.without_gossip else None,
            "worker_enable_mingle": False if self.without_mingle else None,
            "worker_enable_heartbeat": False if self.without_heartbeat else None,
            "worker_state_db": self.statedb,
        }
        return {name: value for name, value in said.items() if value is not None}

    def wanted(self) -> Wanted:
        """Say which config is meant."""
        return Wanted(
            config=self.config,
            app=self.app,
            environ=environment(),
            command_line=self.settings(),
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What a new interpreter is told that is to do as the worker's own process did."""

    path: list[str]
    """Where that looks for modules."""
    options: Options
    modules: list[str]
    """Those that remote control asked for."""


def environment() -> Mapping[str, str]:
    """Give the process's environment, and the broker's URL from where secrets are kept.

    systemd hands a credential `broker_url` over as a file, `default` meaning none; a
    container names the file in $BEATD_BROKER_URL_FILE.
    """
    environ = dict(os.environ)
    named = environ.get("BEATD_BROKER_URL_FILE")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(named) if named else Path(folder, "broker_url") if folder else None
    if path is None or (path.name == "broker_url" and not path.exists()):
        return environ
    try:
        url = path.read_text().strip()
    except OSError as error:
        raise ConfigError(str(path), [f"broker_url: {error.strerror}"]) from error
    if url != "default":
        environ.setdefault("CELERY_BROKER_URL", url)
    return environ
