"""Commands of remote control that change what a worker does."""

import signal as signals
from collections.abc import Callable, Sequence
from typing import Any

from beatd.bounds import rate_of
from beatd.control.pidbox import Later, error_of
from beatd.event_log import EventLog
from beatd.routing import Queue
from beatd.text import one_line
from beatd.worker.commands.arguments import (
    ExchangeType,
    Ids,
    Limit,
    Modules,
    Name,
    Number,
    Stamps,
)
from beatd.worker.commands.controlled import Controlled
from beatd.worker.commands.shapes import ids_in, no, ok
from beatd.worker.in_flight import InFlight
from beatd.worker.revoked import stamps_in, stamps_of

tell = EventLog(__name__)


def revoke(
    worker: Controlled,
    /,
    task_id: Ids,
    terminate: bool | None = False,
    signal: str | int | None = None,
    **_: object,
) -> object:
    task_ids = set(ids_in(task_id))
    number = _signal(signal)
    running = [run for run in worker.workload if run.envelope.id in task_ids]
    worker.workload.recall()
    store = worker.revocations.revoke(task_ids, {run.envelope.id for run in running})
    tell.info("control.revoked", "revoked: %s", one_line(", ".join(sorted(task_ids))))
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
    worker: Controlled, /, signal: str | int | None, task_id: Ids, **_: object
) -> object:
    return revoke(worker, task_id=task_id, terminate=True, signal=signal)


def revoke_by_stamped_headers(
    worker: Controlled,
    /,
    headers: Stamps,
    terminate: bool | None = False,
    signal: str | int | None = None,
    **_: object,
) -> object:
    number = _signal(signal)
    if isinstance(headers, list):
        if not all("=" in pair for pair in headers):
            raise ValueError("headers: expected a dict or a list of header=value")
        pairs = (pair.partition("=") for pair in headers)
        headers = {name: one for name, _, one in pairs}
    stamps = set(stamps_in(headers))
    worker.workload.recall()
    worker.revocations.revoke_stamps(stamps)
    if not terminate:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    running = [run for run in worker.workload if stamps & set(stamps_of(run.envelope))]
    if not _terminate(worker, running, number):
        return ok(f"headers {headers} were not terminated")
    return ok(f"headers {headers} revoked")


def rate_limit(
    worker: Controlled,
    /,
    task_name: str,
    rate_limit: int | float | str | None,
    **_: object,
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
    hard: Limit | None = None,
    soft: Limit | None = None,
    **_: object,
) -> object:
    task = worker.tasks.get(task_name)
    if task is None:
        return no("unknown task")
    task.time_limit = hard
    task.soft_time_limit = soft
    return ok("time limits set successfully")


def add_consumer(
    worker: Controlled,
    /,
    queue: Name,
    exchange: Name | None = None,
    exchange_type: ExchangeType | None = None,
    routing_key: Name | None = None,
    **_: object,
) -> object:
    if not queue:
        raise ValueError("queue: expected a name")
    names = (queue, exchange or queue, exchange_type or "direct", routing_key or queue)
    wanted = worker.router.queues.get(queue) or Queue(*names)
    return _after(worker.intake.consume(wanted), ok(f"add consumer {queue}"))


def cancel_consumer(worker: Controlled, /, queue: Name, **_: object) -> object:
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


def pool_grow(worker: Controlled, /, n: Number = 1, **_: object) -> object:
    return _resize(worker, "grow", n)


def pool_shrink(worker: Controlled, /, n: Number = 1, **_: object) -> object:
    return _resize(worker, "shrink", -n)


def autoscale(
    worker: Controlled,
    /,
    max: Number | None = None,
    min: Number | None = None,
    **_: object,
) -> object:
    scale = worker.sizing.autoscale
    if scale is None:
        raise ValueError("Autoscale not enabled")
    most = scale.most if max is None else max
    least = scale.least if min is None else min
    ceiling = worker.sizing.ceiling
    if not 1 <= least <= most <= ceiling:
        raise ValueError(
            f"expected 1 <= min <= max <= {ceiling}, got max={most} min={least}"
        )
    worker.sizing.scale_between(most, least)
    return ok(f"autoscale now max={most} min={least}")


def pool_restart(
    worker: Controlled,
    /,
    modules: Modules | None = None,
    reload: bool | None = False,
    reloader: Any = None,
    **_: object,
) -> object:
    if not worker.settings.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    if reloader is not None:
        raise TypeError("a reloader is a function, and no message carries one")
    # With the start method `spawn` each new process loads its code anew.
    spawned = worker.settings.worker_pool_start_method == "spawn"
    fresh = bool(modules or reload or spawned)
    if not worker.renewal.begin(modules or [], fresh=fresh):
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


def _signal(name: str | int | None) -> int:
    """Return the signal of a number, `KILL` or `SIGKILL`; SIGTERM if there is none."""
    if name is None or name == "":
        return signals.SIGTERM
    if isinstance(name, int):
        return signals.Signals(name)
    word = name.upper()
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
    ceiling = worker.sizing.ceiling
    if not 1 <= size <= ceiling:
        raise ValueError(
            f"this pool runs 1 to {ceiling} at a time, not {size}: a larger one begins"
            " with a larger concurrency"
        )
    worker.sizing.resize(size)
    if worker.sizing.size != size:
        raise NotImplementedError(
            f"the pool runs {worker.sizing.size} at a time: this pool cannot change its"
            " size, or the system has no more threads"
        )
    return ok(f"pool will {verb}")
