"""Sends beatd's signals to the receivers of Celery's signals."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from beatd import signals
from beatd.celery_apps.processes import call_exit_hooks, end_loop
from beatd.celery_apps.requests import request_for
from beatd.celery_apps.runner import context_of, request_of
from beatd.errors import MessageError
from beatd.message import Call, Envelope, Limits, read_body


@dataclass(frozen=True, slots=True)
class Controller:
    """The sender of Celery's worker signals, with what Django's fixup reads of it."""

    app: Any
    hostname: str
    pool_cls: str


def pass_on_worker(worker: Controller, limits: Limits) -> None:
    """Send the signals of the worker's loop as Celery's, too.

    Bodies are decoded, within the limits, only if a receiver is connected.
    """
    from celery import signals as theirs

    for name in ("worker_init", "worker_ready", "worker_shutdown"):
        send = partial(getattr(theirs, name).send, sender=worker)
        getattr(signals, name).connect(lambda send=send, **_: send())
    signals.worker_process_shutdown.connect(end_loop)
    for name in ("worker_shutting_down", "worker_process_shutdown"):
        _connect_same(name, worker.hostname)
    signals.worker_process_shutdown.connect(call_exit_hooks)
    for name in ("task_unknown", "task_rejected"):
        _connect_same(name, worker)

    def received(request: Envelope, **_: Any) -> None:
        if not theirs.task_received.receivers:
            return
        call = _read(request, limits)
        # A task that was imported later is known in the pool's processes only.
        if call and request.task in worker.app.tasks:
            made = request_for(worker.app, call, worker.hostname)
            theirs.task_received.send(sender=worker, request=made)

    signals.task_received.connect(received)

    def revoked(sender: Any, request: Envelope, **more: Any) -> None:
        if not theirs.task_revoked.receivers:
            return
        call = _read(request, limits) or Call(request, [], {}, None, None, None, None)
        context = context_of(call, request_of(call, worker.hostname, again=False))
        why = {key: more[key] for key in ("terminated", "signum", "expired")}
        # None for a task that was imported later: only the pool's processes know it.
        task = worker.app.tasks.get(sender.name)
        theirs.task_revoked.send(sender=task, request=context, **why)

    signals.task_revoked.connect(revoked)


def _read(envelope: Envelope, limits: Limits) -> Call | None:
    """Return the call of a message; None if it cannot be decoded: said elsewhere."""
    try:
        return read_body(envelope, limits)
    except MessageError:
        return None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class BeatService:
    """The sender of the signals of Celery's beat, with what receivers read of it.

    Celery keeps senders in dicts: each is equal to itself only.
    """

    app: Any
    scheduler: Any
    schedule_filename: str


def pass_on_beat(app: Any, schedule_filename: str) -> None:
    """Send the signals of the scheduler as Celery's, too."""
    from celery import signals as theirs

    def passed_on(signal: signals.Signal, sender: object) -> None:
        service = BeatService(app, sender, schedule_filename)
        getattr(theirs, signal.name).send(sender=service)

    signals.beat_init.connect(passed_on)
    signals.beat_embedded_init.connect(passed_on)


def _connect_same(name: str, instead: object) -> None:
    """Send each signal of this name as Celery's, too, from the sender `instead`."""
    from celery import signals as theirs

    def send(signal: object, sender: object, **more: Any) -> None:
        getattr(theirs, name).send(sender=instead, **more)

    getattr(signals, name).connect(send)
