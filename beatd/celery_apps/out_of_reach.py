"""What a Celery app has that only Celery's own worker or command line would use.

It is said before anything runs, by name and with what follows from it.
"""

import sys
import weakref
from collections.abc import Iterator
from typing import Any

from beatd.config.settings import Problem

_STEPS = "bootsteps are not run, and what they would set up is missing"
_STEPS_INSTEAD = "a receiver of worker_init can do what a step does when it is made"
_OPTIONS = "options of the command line that the app adds are not known to beatd"
_COMMANDS = "remote-control commands of the app's own are not answered"
_DEFAULT = "celery.worker.strategy:default"
_STRATEGY = "the Strategy of these tasks is not called: each message is one run"
_STRATEGY_INSTEAD = "leave the queue of these tasks to a worker of Celery"

_FANOUT = "what these exchanges fan out reaches no worker of beatd's"
_FANOUT_INSTEAD = "let a worker of Celery take from their queues"

_SIGNALS = {
    "celeryd_after_setup": "name a worker's queues with -Q or worker_direct",
    "heartbeat_sent": "worker_ready and a thread of your own can tell that it lives",
    "worker_before_create_process": "worker_process_init comes in each process",
    "task_internal_error": "the log says at ERROR what Celery could not run",
    "user_preload_options": "",
    "eventlet_pool_started": "",
    "eventlet_pool_preshutdown": "",
    "eventlet_pool_postshutdown": "",
    "eventlet_pool_apply": "",
}
"""Signals that are never sent, and what may be done instead."""


def out_of_reach(app: Any) -> Iterator[Problem]:
    """Yield a warning for each kind of thing that is there and has no effect."""
    steps = [step for kind in app.steps.values() for step in kind]
    yield from _said(_STEPS, map(_path_of, steps), _STEPS_INSTEAD)
    options = [option for kind in app.user_options.values() for option in kind]
    yield from _said(_OPTIONS, map(_option_name, options))
    yield from _said(_COMMANDS, _own_commands())
    yield from _receivers()
    own = [
        name
        for name, task in app.tasks.items()
        if _path_of(getattr(task, "Strategy", _DEFAULT)) != _DEFAULT
    ]
    yield from _said(_STRATEGY, own, _STRATEGY_INSTEAD)
    yield from _said(_FANOUT, _fanouts(app), _FANOUT_INSTEAD)


def _said(what: str, names: Any, instead: str = "") -> Iterator[Problem]:
    if found := sorted(set(names)):
        yield Problem(f"{what}: {', '.join(found)}", instead, warning=True)


def _fanouts(app: Any) -> Iterator[str]:
    """Yield the exchanges that reach queues of the app only while these are heard."""
    for queue in app.amqp.queues.values():
        for way in [queue, *queue.bindings]:
            if way.exchange and way.exchange.type == "fanout":
                yield way.exchange.name


def _own_commands() -> Iterator[str]:
    """Yield the commands that Celery itself does not have."""
    control = sys.modules.get("celery.worker.control")
    for name, command in control.Panel.data.items() if control else ():
        if not str(command.__module__).startswith("celery."):
            yield name


def _receivers() -> Iterator[Problem]:
    from celery import signals

    for name, instead in _SIGNALS.items():
        receivers = list(_connected(getattr(signals, name)))
        if receivers:
            called = ", ".join(sorted(map(_path_of, receivers)))
            text = f"the signal {name} is never sent: nothing calls {called}"
            yield Problem(text, instead, warning=True)


def _connected(signal: Any) -> Iterator[Any]:
    """Yield the functions that are connected to a signal, whichever their sender."""
    for _, receiver in list(signal.receivers):
        if isinstance(receiver, weakref.ReferenceType):
            receiver = receiver()
        if receiver is not None:
            yield receiver


def _path_of(value: Any) -> str:
    """Return `module:name` of a class, of a function, or of what such a text names."""
    if isinstance(value, str):
        return value if ":" in value else ":".join(value.rpartition(".")[::2])
    kind = value if hasattr(value, "__qualname__") else type(value)
    name = kind.__qualname__.removeprefix(f"{kind.__module__}.")  # a bootstep's has it
    return f"{kind.__module__}:{name}"


def _option_name(option: Any) -> str:
    names = [*getattr(option, "opts", ()), *getattr(option, "param_decls", ())]
    return next((one for one in names if one.startswith("--")), str(option))
