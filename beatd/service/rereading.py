"""The config, read again in a new interpreter: all modules as they are now.

A module that was imported once stays as it was for as long as a process lives. So a
reload has a process of its own read the config, with all that it imports, and takes the
result over as a whole, or not at all.
"""

import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeAlias

import msgspec

from beatd.config.alert_rules import NO_ALERTS, AlertRules
from beatd.config.called import CalledMessage
from beatd.config.entry_line import BadEntry
from beatd.config.faults import raised
from beatd.config.loading import Config, load
from beatd.config.options import Options
from beatd.config.settings import Problem, Settings
from beatd.errors import ConfigError
from beatd.greenlets import patched
from beatd.routing import Queue
from beatd.service import daemon
from beatd.service.process import wanted_by
from beatd.timetable.entry import Entry

_OF_THIS_PROCESS = ("NOTIFY_", "WATCHDOG_", "LISTEN_")
"""How variables begin that systemd has for this process alone."""

_Told: TypeAlias = tuple[list[str], Options, str]
"""Where to look for modules, the options of the scheduler, and its process's kind."""

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a scheduler takes of a config: all that it goes on with, and no more."""

    entries: Sequence[Entry]
    bad: Sequence[BadEntry]
    warnings: Sequence[Problem]
    unused: Sequence[str]
    queues: Sequence[Queue]
    zone: str
    once: Mapping[str, object]
    """Settings that are taken only when a scheduler begins."""
    queue_names: Sequence[str] = ()
    """The queues that `beatd status` looks at."""
    alerts: AlertRules = NO_ALERTS


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why the config cannot be used: a ConfigError, as another process is told it."""

    source: str
    problems: list[str]


@dataclass(frozen=True, slots=True)
class _NotSent:
    """Why what was read cannot be told to another process."""

    reason: str


def taken_from(config: Config) -> Taken:
    """Return what a scheduler takes of a config."""
    return Taken(
        config.entries,
        config.bad,
        config.warnings,
        config.unused,
        config.queues,
        str(config.settings.zone),
        taken_once(config.settings),
        config.queue_names,
        config.alerts,
    )


TAKEN_ONCE = (
    *("beat_namespace", "beat_schedule_filename", "beat_lock_timeout"),
    *("beat_max_loop_interval", "beat_lost_writes", "beat_min_replicas"),
    *("beat_logfile", "beat_pidfile"),
    *("beat_http", "beat_max_late", "beat_history_per_entry", "beat_history_bytes"),
    "beat_alert_timeout",
    *("beat_uid", "beat_gid", "beat_umask", "beat_executable"),
    *("broker_transport_options", "broker_use_ssl", "broker_connection_timeout"),
    *("task_send_sent_event", "event_exchange", "event_serializer"),
    *("result_backend_transport_options", "redis_backend_use_ssl"),
    *("redis_max_connections", "redis_socket_timeout", "redis_socket_connect_timeout"),
    *("result_serializer", "result_accept_content", "accept_content"),
    *("worker_log_format", "worker_log_datefmt", "worker_log_color"),
    *("worker_hijack_root_logger", "worker_redirect_stdouts"),
    "worker_redirect_stdouts_level",
)
"""What a scheduler's process takes from the settings when it begins, beside its
addresses."""


def taken_once(settings: Settings) -> dict[str, object]:
    """Return what a scheduler takes only when it begins, by the settings' names."""
    return {
        "broker_url": settings.write_urls[:1],
        "result_backend": settings.result_url,
        **{name: getattr(settings, name) for name in TAKEN_ONCE},
    }


def needs_restart(began: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Name what differs between what was taken once and what would be now."""
    return [name for name, value in began.items() if now[name] != value]


def read_again(options: Options, kind: str) -> Taken:
    """Return the config as it is now, modules that it imports included.

    Raises ConfigError for one that cannot be used.
    """
    answer = _ask_new_interpreter(options, kind)
    if isinstance(answer, _Refused):
        raise ConfigError(answer.source, answer.problems)
    if isinstance(answer, Taken):
        return answer
    # What calls the project's own code goes on in this process, with the code that it
    # has: of that, only the config module itself is read again.
    taken = taken_from(load(wanted_by(options, kind), strict=bool(options.strict)))
    text = f"imported modules are not read again: {answer.reason}"
    hint = "restart to take what changed in them"
    return replace(taken, warnings=[*taken.warnings, Problem(text, hint, warning=True)])


def _ask_new_interpreter(options: Options, kind: str) -> Taken | _Refused | _NotSent:
    environment = {
        key: text
        for key, text in daemon.first_environment().items()
        if not key.startswith(_OF_THIS_PROCESS)
    }
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # nothing public
    reading, writing = os.pipe()
    with open(reading, "rb") as answer:  # noqa: PTH123  (a descriptor)
        process = subprocess.Popen(
            [sys.executable, *flags, "-m", "beatd.reread", str(writing)],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
            env=environment,
            start_new_session=True,  # signals are for the scheduler
        )
        os.close(writing)
        # Its input ends when this process does, whichever way: then it ends, too.
        assert process.stdin is not None
        told = msgspec.msgpack.encode((sys.path, options, kind))
        with suppress(BrokenPipeError):  # it has ended already: so has its answer
            process.stdin.write(_LENGTH.pack(len(told)) + told)
            process.stdin.flush()
        # In a real thread: where a greenlet waits for a pipe, all others do, too.
        greenlets = patched()
        packed = greenlets.in_native_thread(answer.read) if greenlets else answer.read()
        with suppress(BrokenPipeError):
            process.stdin.close()
        status = process.wait()
    if not packed:
        problem = f"the process that read it again ended with status {status}"
        return _Refused("the config", [problem])
    found: Taken | _Refused | _NotSent = pickle.loads(packed)
    return found


# In the new interpreter ---------------------------------------------------------------


def answer(asked: BinaryIO, answered: BinaryIO, leave: Callable[[], object]) -> None:
    """Read the config that is asked for, and answer with what was taken of it.

    `leave` is called when whoever asked is gone.
    """
    size = asked.read(_LENGTH.size)
    if len(size) < _LENGTH.size:
        return  # whoever asks has been killed before it could say what
    (length,) = _LENGTH.unpack(size)
    told = msgspec.msgpack.decode(asked.read(length), type=_Told)
    threading.Thread(target=_until_alone, args=[asked, leave], daemon=True).start()
    sys.path[:], options, kind = told
    found: Taken | _Refused
    try:
        wanted = wanted_by(options, kind)
        found = taken_from(load(wanted, strict=bool(options.strict)))
    except ConfigError as error:
        found = _Refused(error.source, error.problems)
    except BaseException as error:  # foreign code, which may raise anything
        found = _Refused("the config", [str(raised(error, ""))])
    answered.write(_packed(found))
    answered.close()


def _until_alone(asked: BinaryIO, leave: Callable[[], object]) -> None:
    asked.read()
    leave()


def _packed(found: Taken | _Refused) -> bytes:
    handed = _handed(found) if isinstance(found, Taken) else found
    try:
        return pickle.dumps(handed)
    except Exception as error:  # whatever an object of the user's may raise
        return pickle.dumps(_NotSent(str(error)))


def _handed(taken: Taken) -> Taken | _NotSent:
    """Return the same with messages that need nothing of this process."""
    entries = []
    for entry in taken.entries:
        message = entry.message
        if isinstance(message, CalledMessage):
            if why := message.made_anew:
                return _NotSent(
                    f"entry {entry.name!r} calls the app for each slot: {why}"
                )
            assert message.template is not None
            entry = replace(entry, message=message.template)
        entries.append(entry)
    return replace(taken, entries=entries)
