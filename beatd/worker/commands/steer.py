"""Commands of remote control that change what a worker does."""

import signal as signals
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from beatd.control.pidbox import Later, error_of
from beatd.event_log import EventLog
from beatd.routing import Queue
from beatd.text import one_line
from beatd.worker.commands.controlled import Controlled
from beatd.worker.commands.shapes import ids_in, no, ok
from beatd.worker.in_flight import InFlight
from beatd.worker.rate import rate_of
from beatd.worker.revoked import stamps_of

tell = EventLog(__name__)

LARGEST_POOL = 10_000
"""The largest size of a pool that a command may ask for: more is a slip of a key."""


def revoke(
    worker: Controlled,
    /,
    task_id: object,
    terminate: object = False,
    signal: object = None,
    **_: object,
) -> object:
    task_ids = set(ids_in(task_id))
    number = _signal(signal)
    running = [run for run in worker.workload if run.envelope.id in task_ids]
    worker.workload.recall()
    store = worker.revocations.revoke(task_ids, {run.envelope.id for run in running})
    names = ", ".join(map(one_line, sorted(task_ids)))
    tell.info("control.revoked", "revoked: %s", names)
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
    stamps = {(name, one) for name, values in headers.items() for one in ids_in(values)}
    worker.workload.recall()
    worker.revocations.revoke_stamps(stamps)
    if not terminate:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    running = [run for run in worker.workload if stamps & set(stamps_of(run.envelope))]
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
    names = (queue, exchange or queue, exchange_type or "direct", routing_key or queue)
    if not all(isinstance(one, str) and one for one in names):
        raise ValueError("expected names as text")
    wanted = worker.router.queues.get(queue) or Queue(*names)
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
    scale = worker.sizing.autoscale
    if scale is None:
        raise ValueError("Autoscale not enabled")
    most = scale.most if max is None else int(max)
    least = scale.least if min is None else int(min)
    if not 1 <= least <= most <= LARGEST_POOL:
        raise ValueError(f"expected 1 <= min <= max, got max={most} min={least}")
    worker.sizing.scale_between(most, least)
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
    # With the start method `spawn` each new process loads its code anew.
    spawned = worker.settings.worker_pool_start_method == "spawn"
    if not worker.renewal.begin(named, fresh=bool(named or reload or spawned)):
        raise NotImplementedError("this pool has no processes that could be replaced")
    return ok("reload started")


def shutdown(worker: Controlled, /, **_: object) -> object:
    if not worker.settings.worker_remote_shutdown:
        raise PermissionError("shutdown is refused: worker_remote_shutdown is off")
    worker.shut_down()
    return None


def _after(work: Callable[[], object], value: object) -> Later:
    """Return an answer that does the work first and then has this value."""

    def give() -> object:
        work()
        return value

    return Later(give)


def _signal(name: object) -> int:
    """Return the signal of a number, `KILL` or `SIGKILL`; SIGTERM if there is none."""
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
    for run in running:
        worker.workload.terminate(run, number)
    return {run.envelope.id for run in running}


def _switch_events(worker: Controlled, *, on: bool) -> object:
    word = "enabled" if on else "disabled"
    if worker.events is None:
        return no("event dispatcher unavailable")
    if worker.events.enabled is on:
        return ok(f"task events already {word}")
    worker.events.enabled = on
    return ok(f"task events {word}")


def _resize(worker: Controlled, verb: str, change: int) -> object:
    if worker.sizing.autoscale:
        return no(
            f"pool_{verb} is not supported with autoscale."
            " Adjust autoscale range instead."
        )
    size = worker.sizing.size + change
    if not 1 <= size <= LARGEST_POOL:
        raise ValueError(f"a pool runs 1 to {LARGEST_POOL} at a time, not {size}")
    worker.sizing.resize(size)
    if worker.sizing.size != size:
        raise NotImplementedError("this pool cannot change its size")
    return ok(f"pool will {verb}")
