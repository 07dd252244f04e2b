"""What remote control can ask of a worker: one table, name to function.

Each function is called in the worker's own thread with what it may see and steer, and
gives the value of the answer; `Later` gives it where waiting does no harm.
"""

import logging
import os
import platform
import resource
import signal as signals
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from beatd.config.settings import Settings, mask, table
from beatd.control.pidbox import Command, Later, error_of
from beatd.errors import MessageError
from beatd.events.lamport import LamportClock
from beatd.instant import SECOND
from beatd.message import Envelope, Limits, read_body
from beatd.message.codec import content_types
from beatd.pools.base import Pool
from beatd.results.exceptions import repr_of
from beatd.routing import Queue, Router
from beatd.runs.report import one_line
from beatd.tasks import Registry
from beatd.text import shown
from beatd.worker.autoscale import Autoscale
from beatd.worker.backlog import Backlog
from beatd.worker.events import SOFTWARE, WorkerEvents, iso
from beatd.worker.fetcher import Intake
from beatd.worker.in_flight import InFlight, stamps_of
from beatd.worker.rate import rate_of
from beatd.worker.revoked import Revocations

logger = logging.getLogger(__name__)

LARGEST_POOL = 10_000
"""Runs at the same time that a command may ask for: more is a slip of a key."""

LARGEST_BODY = 100_000
"""Characters of a body that is decoded only to show its arguments."""

_SHOWN = Limits(content_types(["json", "msgpack", "yaml"]))
"""Arguments in pickle are shown as their sender wrote them: foreign code stays out."""


class Controlled(Protocol):
    """The worker, as remote control sees it; used in the worker's own thread only."""

    name: str
    tasks: Registry
    settings: Settings
    router: Router
    pool: Pool
    autoscale: Autoscale | None
    events: WorkerEvents | None
    lamport: LamportClock
    intake: Intake
    backlog: Backlog
    revocations: Revocations
    total: Counter[str]
    """How many runs of each task were begun."""

    @property
    def capacity(self) -> int:
        """Give how many deliveries it holds at most."""
        ...

    @property
    def uptime(self) -> int:
        """Give the seconds since its start."""
        ...

    def running(self) -> list[InFlight]:
        """Give what the pool has, or is about to have."""
        ...

    def revoke_stamps(self, stamps: Collection[tuple[str, str]]) -> None:
        """Let nothing that carries one of these begin any more."""
        ...

    def revoke(self, task_ids: Collection[str]) -> Callable[[], object]:
        """Let these not begin any more; give what is left to do, which takes time."""
        ...

    def terminate(self, held: InFlight, number: int) -> None:
        """End a run by a signal. Raises NotImplementedError if the pool cannot."""
        ...

    def resize(self, size: int) -> None:
        """Run this many at the same time."""
        ...

    def renew(self, modules: Sequence[str], *, fresh: bool) -> bool:
        """Have new processes run what follows; False if the pool has none.

        `fresh`: they have the code as it is now, and of these modules too.
        """
        ...

    def scale_between(self, most: int, least: int) -> None:
        """Let the pool's size follow the load between these bounds."""
        ...

    def shut_down(self) -> None:
        """Let what runs end, and end."""
        ...


Function: TypeAlias = Callable[..., object]


def execute(worker: Controlled, command: Command) -> None:
    """Do what a command asks for, and answer; whatever it holds, nothing is raised."""
    logger.debug(
        "remote control: %s", shown(command.method), extra={"event": "control.command"}
    )
    function = COMMANDS.get(command.method)
    try:
        if function is None:
            raise KeyError(command.method)
        value = function(worker, **command.arguments)
    except Exception as error:
        logger.error(
            "cannot obey %s: %s",
            shown(command.method),
            one_line(repr_of(error)),
            extra={"event": "control.failed"},
        )
        value = error_of(error)
    command.answer(value)


def ok(text: str) -> dict[str, str]:
    return {"ok": text}


def no(text: str) -> dict[str, str]:
    return {"error": text}


# To look


def ping(worker: Controlled, /, **_: object) -> object:
    return ok("pong")


def clock(worker: Controlled, /, **_: object) -> object:
    return {"clock": worker.lamport.value}


def hello(
    worker: Controlled, /, from_node: str, revoked: object = None, **_: object
) -> object:
    if from_node == worker.name:
        return None
    worker.revocations.learn(_ids(revoked))
    known = worker.revocations.known()
    return {"revoked": known, "clock": worker.lamport.forward()}


def active(worker: Controlled, /, safe: object = False, **_: object) -> object:
    return [_info(worker, held, safe=bool(safe)) for held in _begun(worker)]


def reserved(worker: Controlled, /, **_: object) -> object:
    return [_info(worker, held) for held in _unbegun(worker)]


def scheduled(worker: Controlled, /, **_: object) -> object:
    def give() -> object:
        return [
            {"eta": iso(said.eta_text), "priority": 6, "request": _said(worker, said)}
            for said in worker.intake.delayed()
        ]

    return Later(give)


def revoked(worker: Controlled, /, **_: object) -> object:
    return worker.revocations.known()


def query_task(worker: Controlled, /, ids: object, **_: object) -> object:
    wanted = set(_ids(ids))
    found: dict[str, tuple[str, object]] = {}
    for state, all_held in (
        ("reserved", _unbegun(worker)),
        ("active", _begun(worker)),
    ):
        for held in all_held:
            if held.said.id in wanted:
                found[held.said.id] = state, _info(worker, held)

    def give() -> object:
        later = {
            said.id: ("scheduled", _said(worker, said))
            for said in worker.intake.delayed()
            if said.id in wanted
        }
        return {**later, **found}

    return Later(give)


def registered(
    worker: Controlled,
    /,
    taskinfoitems: object = None,
    builtins: object = False,
    **_: object,
) -> object:
    asked = _ids(taskinfoitems) or ["exchange", "routing_key", "rate_limit"]
    items = [item for item in asked if not item.startswith("_")]

    def line(name: str) -> str:
        task = worker.tasks[name]
        values = [(item, getattr(task, item, None)) for item in items]
        told = [f"{item}={value}" for item, value in values if value is not None]
        return f"{name} [{' '.join(told)}]" if told else name

    names = sorted(worker.tasks)
    return [line(name) for name in names if builtins or name[:7] != "celery."]


def active_queues(worker: Controlled, /, **_: object) -> object:
    return [_queue(queue) for queue in worker.intake.queues]


def stats(worker: Controlled, /, **_: object) -> object:
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = (name for name in dir(used) if name.startswith("ru_"))
    return {
        "total": dict(worker.total),
        "pid": os.getpid(),
        "clock": str(worker.lamport.value),
        "uptime": worker.uptime,
        "pool": _pool(worker),
        "broker": _broker(worker.settings),
        "prefetch_count": worker.capacity,
        "rusage": {name.removeprefix("ru_"): getattr(used, name) for name in names},
    }


def conf(worker: Controlled, /, with_defaults: object = False, **_: object) -> object:
    return _settings(worker.settings, everything=bool(with_defaults))


def report(worker: Controlled, /, **_: object) -> object:
    lines = [
        "",
        f"software -> {SOFTWARE['sw_ident']}:{SOFTWARE['sw_ver']}"
        f" py:{platform.python_version()}",
        f"platform -> system:{platform.system()} arch:{platform.machine()}"
        f" imp:{platform.python_implementation()}",
        f"settings -> broker:{mask(worker.settings.read_urls[0])}"
        f" results:{mask(worker.settings.result_url or 'disabled')}",
        "",
    ]
    told = _settings(worker.settings, everything=False)
    lines += [f"{name}: {value!r}" for name, value in told.items()]
    return ok("\n".join([*lines, ""]))


# To steer


def revoke(
    worker: Controlled,
    /,
    task_id: object,
    terminate: object = False,
    signal: object = None,
    **_: object,
) -> object:
    task_ids = set(_ids(task_id))
    number = _signal(signal)
    running = [held for held in worker.running() if held.said.id in task_ids]
    store = worker.revoke(task_ids)
    names = ", ".join(map(one_line, sorted(task_ids)))
    logger.info("revoked: %s", names, extra={"event": "control.revoked"})
    try:
        ended = _terminate(worker, running, number) if terminate else set()
    except NotImplementedError as error:
        return _after(store, error_of(error))
    if not terminate:
        value = ok(f"tasks {task_ids} flagged as revoked")
    elif ended:
        value = ok(f"terminate: {', '.join(ended)}")
    else:
        value = ok("terminate: tasks unknown")
    return _after(store, value)


def terminate(
    worker: Controlled, /, signal: object, task_id: object, **_: object
) -> object:
    return revoke(worker, task_id=task_id, terminate=True, signal=signal)


def revoke_by_stamped_headers(
    worker: Controlled,
    /,
    headers: object,
    terminate: object = False,
    signal: object = None,
    **_: object,
) -> object:
    number = _signal(signal)
    if isinstance(headers, list):
        headers = dict(str(pair).split("=", 1) for pair in headers)
    if not isinstance(headers, dict):
        raise ValueError("headers: expected a dict or a list of header=value")
    stamps = {(name, one) for name, values in headers.items() for one in _ids(values)}
    worker.revoke_stamps(stamps)
    if not terminate:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    running = [held for held in worker.running() if stamps & set(stamps_of(held.said))]
    if not _terminate(worker, running, number):
        return ok(f"headers {headers} were not terminated")
    return ok(f"headers {headers} revoked")


def rate_limit(
    worker: Controlled, /, task_name: str, rate_limit: Any, **_: object
) -> object:
    try:
        rate_of(rate_limit)
    except (ValueError, TypeError) as error:
        return no(f"Invalid rate limit string: {error!r}")
    task = worker.tasks.get(task_name)
    if task is None:
        return no("unknown task")
    task.rate_limit = rate_limit
    worker.backlog.limit_rate(task_name)
    return ok(
        "new rate limit set successfully"
        if rate_limit
        else "rate limit disabled successfully"
    )


def time_limit(
    worker: Controlled,
    /,
    task_name: str = "",
    hard: float | None = None,
    soft: float | None = None,
    **_: object,
) -> object:
    task = worker.tasks.get(task_name)
    if task is None:
        return no("unknown task")
    for limit in (hard, soft):
        if limit is not None and not float(limit) >= 0:
            raise ValueError(f"expected seconds, got {limit!r}")
    task.time_limit = None if hard is None else float(hard)
    task.soft_time_limit = None if soft is None else float(soft)
    return ok("time limits set successfully")


def add_consumer(
    worker: Controlled,
    /,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **_: object,
) -> object:
    said = (queue, exchange or queue, exchange_type or "direct", routing_key or queue)
    if not all(isinstance(one, str) and one for one in said):
        raise ValueError("expected names as text")
    wanted = worker.router.queues.get(queue) or Queue(*said)
    return _after(worker.intake.consume(wanted), ok(f"add consumer {queue}"))


def cancel_consumer(worker: Controlled, /, queue: str, **_: object) -> object:
    worker.intake.cease(queue)
    return ok(f"no longer consuming from {queue}")


def enable_events(worker: Controlled, /, **_: object) -> object:
    return _switch_events(worker, on=True)


def disable_events(worker: Controlled, /, **_: object) -> object:
    return _switch_events(worker, on=False)


def heartbeat(worker: Controlled, /, **_: object) -> object:
    if worker.events:
        worker.events.heartbeat()
    return None


def pool_grow(worker: Controlled, /, n: int = 1, **_: object) -> object:
    return _resize(worker, "grow", n)


def pool_shrink(worker: Controlled, /, n: int = 1, **_: object) -> object:
    return _resize(worker, "shrink", -n)


def autoscale(
    worker: Controlled,
    /,
    max: int | None = None,
    min: int | None = None,
    **_: object,
) -> object:
    scale = worker.autoscale
    if scale is None:
        raise ValueError("Autoscale not enabled")
    most = scale.most if max is None else int(max)
    least = scale.least if min is None else int(min)
    if not 1 <= least <= most <= LARGEST_POOL:
        raise ValueError(f"expected 1 <= min <= max, got max={most} min={least}")
    worker.scale_between(most, least)
    return ok(f"autoscale now max={most} min={least}")


def pool_restart(
    worker: Controlled,
    /,
    modules: object = None,
    reload: object = False,
    reloader: object = None,
    **_: object,
) -> object:
    if not worker.settings.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    if reloader is not None:
        raise TypeError("a reloader is a function, and no message carries one")
    try:
        named = msgspec.convert(modules or [], list[str])
    except msgspec.ValidationError:
        raise ValueError(f"expected names of modules, got {modules!r}") from None
    # That is what spawn is for: each start of its processes is one from nothing.
    spawned = worker.settings.worker_pool_start_method == "spawn"
    if not worker.renew(named, fresh=bool(named or reload or spawned)):
        raise NotImplementedError("this pool has no processes that could be replaced")
    return ok("reload started")


def shutdown(worker: Controlled, /, **_: object) -> object:
    if not worker.settings.worker_remote_shutdown:
        raise PermissionError("shutdown is refused: worker_remote_shutdown is off")
    worker.shut_down()
    return None


COMMANDS: dict[str, Function] = {
    function.__name__: function
    for function in (
        *(ping, clock, hello, active, reserved, scheduled, revoked, query_task),
        *(registered, active_queues, stats, conf, report),
        *(revoke, terminate, revoke_by_stamped_headers, rate_limit, time_limit),
        *(add_consumer, cancel_consumer, enable_events, disable_events, heartbeat),
        *(pool_grow, pool_shrink, autoscale, pool_restart, shutdown),
    )
} | {
    "dump_conf": conf,
    "dump_active": active,
    "dump_reserved": reserved,
    "dump_schedule": scheduled,
    "dump_revoked": revoked,
    "dump_tasks": registered,
}
"""Every command, by Celery's names, the older ones too."""


# What they share


def _begun(worker: Controlled) -> list[InFlight]:
    return [held for held in worker.running() if held.began is not None]


def _unbegun(worker: Controlled) -> list[InFlight]:
    about = [held for held in worker.running() if held.began is None]
    return [*about, *worker.backlog]


def _after(work: Callable[[], object], value: object) -> Later:
    """Give a value once the work is done."""

    def give() -> object:
        work()
        return value

    return Later(give)


def _ids(value: object) -> list[str]:
    """Read one text or a list of them; what is no text is left out."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [one for one in listed if isinstance(one, str)]


def _signal(name: object) -> int:
    """Read a signal: a number, `KILL` or `SIGKILL`; none is SIGTERM."""
    if name is None or name == "":
        return signals.SIGTERM
    if isinstance(name, int):
        return signals.Signals(name)
    word = str(name).upper()
    word = word if word.startswith("SIG") else f"SIG{word}"
    if word not in signals.Signals.__members__:
        raise ValueError(f"no signal is called {name!r}")
    return signals.Signals[word]


def _terminate(
    worker: Controlled, running: Sequence[InFlight], number: int
) -> set[str]:
    for held in running:
        worker.terminate(held, number)
    return {held.said.id for held in running}


def _switch_events(worker: Controlled, *, on: bool) -> object:
    word = "enabled" if on else "disabled"
    if worker.events is None:
        return no("event dispatcher unavailable")
    if worker.events.enabled is on:
        return ok(f"task events already {word}")
    worker.events.enabled = on
    return ok(f"task events {word}")


def _resize(worker: Controlled, verb: str, change: int) -> object:
    if worker.autoscale:
        return no(
            f"pool_{verb} is not supported with autoscale."
            " Adjust autoscale range instead."
        )
    size = worker.pool.size + change
    if not 1 <= size <= LARGEST_POOL:
        raise ValueError(f"a pool runs 1 to {LARGEST_POOL} at a time, not {size}")
    worker.resize(size)
    if worker.pool.size != size:
        raise NotImplementedError("this pool cannot change its size")
    return ok(f"pool will {verb}")


def _info(
    worker: Controlled, held: InFlight, *, safe: bool = False
) -> dict[str, object]:
    began = None if held.began is None else held.began / SECOND
    return {
        **_said(worker, held.said, safe=safe),
        "time_start": began,
        "acknowledged": held.acknowledged,
        "delivery_info": _delivery(held.said),
        "worker_pid": held.pid,
    }


def _said(
    worker: Controlled, said: Envelope, *, safe: bool = False
) -> dict[str, object]:
    args, kwargs = _arguments(said, safe=safe)
    return {
        "id": said.id,
        "name": said.name,
        "args": args,
        "kwargs": kwargs,
        "type": said.task,
        "hostname": worker.name,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": _delivery(said),
        "worker_pid": None,
    }


def _delivery(said: Envelope) -> dict[str, object]:
    return {
        "exchange": said.exchange,
        "routing_key": said.routing_key,
        "priority": said.priority,
        "redelivered": said.redelivered,
    }


def _arguments(said: Envelope, *, safe: bool) -> tuple[object, object]:
    """Give the arguments; as their sender wrote them if asked, or if need be."""
    written = said.argsrepr, said.kwargsrepr
    if safe or len(said.body) > LARGEST_BODY:
        return written
    try:
        call = read_body(said, _SHOWN)
    except MessageError:
        return written
    return call.args, call.kwargs


def _queue(queue: Queue) -> dict[str, object]:
    """Give a queue in kombu's form."""
    return {
        "name": queue.name,
        "exchange": {
            "name": queue.exchange,
            "type": queue.exchange_type,
            "arguments": None,
            "durable": True,
            "passive": False,
            "auto_delete": False,
            "delivery_mode": None,
            "no_declare": False,
        },
        "routing_key": queue.routing_key,
        "queue_arguments": None,
        "binding_arguments": None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": queue.expires,
        "message_ttl": None,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": None,
    }


def _pool(worker: Controlled) -> dict[str, object]:
    settings, kind = worker.settings, type(worker.pool)
    runs = sum(worker.total.values())
    limits = settings.task_soft_time_limit, settings.task_time_limit
    return {
        "implementation": f"{kind.__module__}:{kind.__qualname__}",
        "max-concurrency": worker.pool.size,
        "processes": worker.pool.processes(),
        "max-tasks-per-child": settings.worker_max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [limit or 0 for limit in limits],
        "writes": {"total": runs, "strategy": "fair"},
    }


def _broker(settings: Settings) -> dict[str, object]:
    url = urlsplit(settings.read_urls[0])
    return {
        "hostname": url.hostname,
        "userid": url.username,
        "virtual_host": unquote(url.path.lstrip("/")) or "0",
        "port": url.port or 6379,
        "insist": False,
        "ssl": bool(settings.broker_use_ssl) or url.scheme == "rediss",
        "transport": "redis",
        "connect_timeout": settings.broker_transport_options.get(
            "socket_connect_timeout", 3
        ),
        "transport_options": _plain("", settings.broker_transport_options),
        "login_method": None,
        "uri_prefix": None,
        "heartbeat": 0,
        "failover_strategy": _plain("", settings.broker_failover_strategy)
        or "round-robin",
        "alternates": [mask(other) for other in settings.read_urls[1:]],
        "credential_provider": None,
    }


_SECRETS = ("pass", "secret", "token", "api", "key", "credential")


def _settings(settings: Settings, *, everything: bool) -> dict[str, object]:
    """Give the settings that differ from their defaults, or all; no secrets."""
    told = {}
    for line in fields(settings):
        value = getattr(settings, line.name)
        if everything or value != table()[line.name].default:
            told[line.name] = _plain(line.name, value)
    return told


def _plain(name: str, value: object) -> Any:
    """Give what JSON can say of a setting, without what could be secret."""
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), part) for key, part in value.items()}
    if name.startswith("broker_") and isinstance(value, tuple):
        return mask(";".join(value))  # addresses, as Celery writes them
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, part) for part in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    # A name of beatd's own, such as `result_key_prefix`, is none of these.
    if name not in table() and any(word in name.lower() for word in _SECRETS):
        return "********"
    return mask(value) if isinstance(value, str) else mask(repr_of(value))
