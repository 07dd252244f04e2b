"""This process as the options and the settings want it: user, umask, log, pid file.

And what it says of its config when it begins.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from beatd.config.entry_line import BadEntry
from beatd.config.loading import Config, Wanted, load
from beatd.config.options import Options
from beatd.config.settings import Problem, mask_url
from beatd.config.switches import LOG_LEVEL, WORKER_NODE
from beatd.errors import BeatdError, ConfigError
from beatd.event_log import EventLog, show_times_in
from beatd.events.zone import machine_zone
from beatd.logs import Form
from beatd.runs import stdout
from beatd.service import daemon
from beatd.service.log_handlers import dump_stacks_to
from beatd.service.log_setup import Log
from beatd.service.nodes import node_name, path_of
from beatd.service.terminal import Banner
from beatd.storage.open_files import close_files
from beatd.text import counted
from beatd.version import __version__

tell = EventLog(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """A scheduler's or a worker's process: what its options say, else the settings."""

    options: Options
    kind: str
    """`beat` or `worker`: the names of its settings begin so (`worker_uid`)."""
    config: Config

    def become(self) -> None:
        """Set umask, user and group of this process as the options want them.

        With --detach only a new process, in the background, returns from here. Raises
        ConfigError.
        """
        if daemon.wants_detaching(self.options.detach):
            daemon.detach(self.chosen("executable"))
        if umask := self.chosen("umask"):
            os.umask(daemon.umask_of(umask))
        daemon.become(self.chosen("uid"), self.chosen("gid"))

    @contextmanager
    def in_service(self, node: str) -> Iterator[Log]:
        """Be the node of this name for the block's time: log for it, hold its pid file.

        Raises ConfigError.
        """
        pid_file = self.chosen("pidfile")
        path = Path(path_of(pid_file, node)) if pid_file else None
        log = self.begin_log(node)
        try:
            with daemon.pid_file(path):
                yield log
        except Exception as error:
            # Without a file the log is standard error, where the error is shown anyway.
            if log.file:
                fault = None if isinstance(error, BeatdError) else error
                words = "ended by an error: %s"
                tell.critical("failed", words, error, exc_info=fault)
            raise
        finally:
            stdout.restore()
            close_files()
        tell.info("stop", "stopped")

    def begin_log(self, node: str) -> Log:
        """Log for the node of this name from now on; what is printed, too, if so set.

        Raises ConfigError.
        """
        settings = self.config.settings
        level = level_of(settings.worker_redirect_stdouts_level)
        log = self._log_of(node)
        show_times_in(settings.zone)
        if log.set_up() and settings.worker_redirect_stdouts:
            stdout.redirect(level)
        return log

    def chosen(self, name: str) -> str | None:
        """Return an option, else the setting that is its default."""
        value = getattr(self.options, name)
        if value is None:
            value = getattr(self.config.settings, f"{self.kind}_{name}")
        return None if value is None else str(value)

    def _log_of(self, node: str) -> Log:
        options, settings = self.options, self.config.settings
        return Log(
            node,
            level=level_of(options.loglevel or LOG_LEVEL),
            form=form_of(options),
            file=self.chosen("logfile"),
            line=settings.worker_log_format,
            date=settings.worker_log_datefmt,
            task_line=settings.worker_task_log_format,
            task_date=settings.worker_task_log_datefmt,
            colour=False if options.no_color else settings.worker_log_color,
            hijack=settings.worker_hijack_root_logger,
        )


def load_config(options: Options, kind: str) -> Process:
    """Load the config; leave umask and user of this process as they are.

    Raises ConfigError.
    """
    dump_stacks_to(2)
    show_times_in(machine_zone())
    Log("", form=form_of(options)).begin()
    config = load(wanted_by(options, kind), strict=bool(options.strict))
    return Process(options, kind, config)


def wanted_by(options: Options, kind: str) -> Wanted:
    """Return which config a process of this kind wants."""
    worker = node_name(options.hostname or WORKER_NODE) if kind == "worker" else ""
    return replace(options.wanted(), worker=worker, entries_only=kind == "beat")


def begin(options: Options, kind: str) -> Process:
    """Load the config, and `become` what it and the options say. Raises ConfigError."""
    process = load_config(options, kind)
    process.become()
    return process


def form_of(options: Options) -> Form | None:
    """Return the form of the log that was asked for; None if none was."""
    return None if options.log_format is None else Form(options.log_format)


def level_of(name: str | int) -> int:
    """Return a level of logging by its name or number.

    Raises ConfigError.
    """
    levels = logging.getLevelNamesMapping()
    try:
        return levels[name.upper()] if isinstance(name, str) else name
    except KeyError:
        expected = ", ".join(levels)
        problem = f"expected one of {expected}, or a number; got {name!r}"
        raise ConfigError("worker_redirect_stdouts_level", [problem]) from None


def on_signals(handlers: Mapping[str, Callable[[], None]]) -> None:
    """Let signals do one thing each: SimpleQueue.put is safe there, little else is."""
    for name, handler in handlers.items():
        signal.signal(getattr(signal, name), lambda *_, handle=handler: handle())


def announce(options: Options, config: Config, *more: str) -> Banner:
    """Say on a terminal what runs, with these lines; elsewhere the log says it.

    Return the terminal for what follows.
    """
    daemon.begun()
    settings = config.settings
    broker = mask_url(settings.write_urls[0])
    number = counted(len(config.entries), "entry")
    is_text = form_of(options) in (None, Form.TEXT)
    if options.quiet or not is_text:
        banner = Banner(None)
    else:
        banner = Banner.on_standard_error()
    if banner.terminal is None:
        tell.info(
            "start",
            "beatd %s: config %s, broker %s, %s, pid %d on %s",
            __version__,
            config.source.name,
            broker,
            number,
            os.getpid(),
            socket.gethostname(),
        )
        return banner
    results = mask_url(settings.result_url) if settings.result_url else "none"
    banner.say(
        f"beatd {__version__}   config {config.source.name}"
        f"   state {settings.beat_schedule_filename}",
        f"broker {broker}   results {results}   zone {settings.zone}   {number}",
        *more,
    )
    return banner


class Said(Protocol):
    """What is said of a config before it is used."""

    @property
    def bad(self) -> Sequence[BadEntry]: ...
    @property
    def warnings(self) -> Sequence[Problem]: ...
    @property
    def unused(self) -> Sequence[str]: ...


def tell_of(config: Said) -> None:
    """Name what is left out of a config, what is odd in it, and what does nothing."""
    for bad in config.bad:
        for problem in bad.problems:
            tell.error(
                "entry.bad",
                "entry %r is left out: %s",
                bad.name,
                problem,
                entry=bad.name,
            )
    for problem in config.warnings:
        tell.warning("config.warning", "%s", problem)
    if config.unused:
        words = ", ".join(config.unused)
        tell.debug(
            "config.unused",
            "accepted, without effect: %s",
            words,
            settings=config.unused,
        )
