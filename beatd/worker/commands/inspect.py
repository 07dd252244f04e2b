"""Commands of remote control that look at a worker."""

import os
import platform
import resource
import sys
from collections.abc import Iterator

from beatd.config.settings import mask_url, table
from beatd.control.pidbox import Later
from beatd.worker.commands.arguments import Ids, Names, Revoked
from beatd.worker.commands.controlled import Controlled
from beatd.worker.commands.shapes import (
    Excerpts,
    broker_of,
    ids_in,
    ok,
    pool_of,
    queue_of,
    request_of,
    run_of,
    settings_of,
)
from beatd.worker.events import SOFTWARE, iso
from beatd.worker.in_flight import InFlight


def ping(worker: Controlled, /, **_: object) -> object:
    return ok("pong")


def clock(worker: Controlled, /, **_: object) -> object:
    return {"clock": worker.lamport.value}


def hello(
    worker: Controlled, /, from_node: str, revoked: Revoked | None = None, **_: object
) -> object:
    if from_node == worker.name:
        return None
    theirs = list(revoked) if isinstance(revoked, dict) else revoked
    worker.revocations.learn(ids_in(theirs))
    known = worker.revocations.known()
    return {"revoked": known, "clock": worker.lamport.forward()}


def active(worker: Controlled, /, safe: bool | None = False, **_: object) -> object:
    begun = worker.workload.begun
    shown = Excerpts(worker.settings)
    return [run_of(worker.name, run, shown, safe=bool(safe)) for run in begun]


def reserved(worker: Controlled, /, **_: object) -> object:
    shown = Excerpts(worker.settings)
    return [run_of(worker.name, run, shown) for run in _unbegun(worker)]


def scheduled(worker: Controlled, /, **_: object) -> object:
    def give() -> object:
        shown = Excerpts(worker.settings)
        return [
            {
                "eta": iso(envelope.eta_text),
                "priority": 6,
                "request": request_of(worker.name, envelope, shown),
            }
            for envelope in worker.intake.delayed()
        ]

    return Later(give)


def revoked(worker: Controlled, /, **_: object) -> object:
    return worker.revocations.known()


def query_task(worker: Controlled, /, ids: Ids, **_: object) -> object:
    wanted = set(ids_in(ids))
    shown = Excerpts(worker.settings)
    found: dict[str, tuple[str, object]] = {}
    for state, runs in (
        ("reserved", _unbegun(worker)),
        ("active", worker.workload.begun),
    ):
        for run in runs:
            if run.envelope.id in wanted:
                found[run.envelope.id] = state, run_of(worker.name, run, shown)

    def give() -> object:
        later = {
            envelope.id: ("scheduled", request_of(worker.name, envelope, shown))
            for envelope in worker.intake.delayed()
            if envelope.id in wanted
        }
        return {**later, **found}

    return Later(give)


def registered(
    worker: Controlled,
    /,
    taskinfoitems: Names | None = None,
    builtins: bool | None = False,
    **_: object,
) -> object:
    asked = ids_in(taskinfoitems) or ["exchange", "routing_key", "rate_limit"]
    items = [item for item in asked if not item.startswith("_")]

    def line(name: str) -> str:
        task = worker.tasks[name]
        values = [(item, getattr(task, item, None)) for item in items]
        told = [f"{item}={value}" for item, value in values if value is not None]
        return f"{name} [{' '.join(told)}]" if told else name

    names = sorted(worker.tasks)
    return [line(name) for name in names if builtins or name[:7] != "celery."]


def active_queues(worker: Controlled, /, **_: object) -> object:
    return [queue_of(queue) for queue in worker.intake.queues]


def stats(worker: Controlled, /, **_: object) -> object:
    total = worker.workload.total
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = (name for name in dir(used) if name.startswith("ru_"))
    return {
        "total": dict(total),
        "pid": os.getpid(),
        "clock": str(worker.lamport.value),
        "uptime": worker.uptime,
        "pool": pool_of(worker.pool, total.total(), worker.settings),
        "broker": broker_of(worker.settings),
        "prefetch_count": worker.sizing.capacity,
        "rusage": {name.removeprefix("ru_"): getattr(used, name) for name in names},
    }


def conf(
    worker: Controlled, /, with_defaults: bool | None = False, **_: object
) -> object:
    return settings_of(worker.settings, table() if with_defaults else worker.given)


def report(worker: Controlled, /, **_: object) -> object:
    lines = [
        "",
        f"software -> {' '.join(_software())} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} arch:{platform.machine()}"
        f" imp:{platform.python_implementation()}",
        f"settings -> broker:{mask_url(worker.settings.read_urls[0])}"
        f" results:{mask_url(worker.settings.result_url or 'disabled')}",
        "",
    ]
    told = settings_of(worker.settings, worker.given)
    lines += [f"{name}: {value!r}" for name, value in told.items()]
    return ok("\n".join([*lines, ""]))


def _software() -> Iterator[str]:
    """Yield the versions of what runs here: Celery's first, as its workers tell them.

    A worker whose app is no app of Celery's has imported none of Celery's packages.
    """
    for name in ("celery", "kombu", "billiard", "redis"):
        if module := sys.modules.get(name):
            yield f"{name}:{module.__version__}"
    yield f"{SOFTWARE['sw_ident']}:{SOFTWARE['sw_ver']}"


def _unbegun(worker: Controlled) -> list[InFlight]:
    return [*worker.workload.unbegun, *worker.backlog]
