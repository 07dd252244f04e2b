"""The commands of remote control: one table, name to function.

Each function is called in the worker's own thread with the parts of the worker that it
may read and change. It returns the value of the answer, or `Later` if the value takes
time.

    arguments   what a client has sent, as the types that a command declares
    inspect     commands that look at the worker
    steer       commands that change something
    shapes      messages, queues, pools and settings in the forms that Celery shows
"""

from collections.abc import Callable
from typing import TypeAlias

from beatd.control.pidbox import Command, error_of
from beatd.event_log import EventLog
from beatd.results.exceptions import repr_of
from beatd.text import one_line, quoted
from beatd.worker.commands import inspect, steer
from beatd.worker.commands.arguments import read
from beatd.worker.commands.controlled import Controlled

__all__ = ["COMMANDS", "Controlled", "execute"]

tell = EventLog(__name__)

Function: TypeAlias = Callable[..., object]

COMMANDS: dict[str, Function] = {
    function.__name__: function
    for function in (
        *(inspect.ping, inspect.clock, inspect.hello, inspect.active),
        *(inspect.reserved, inspect.scheduled, inspect.revoked, inspect.query_task),
        *(inspect.registered, inspect.active_queues, inspect.stats, inspect.conf),
        inspect.report,
        *(steer.revoke, steer.terminate, steer.revoke_by_stamped_headers),
        *(steer.rate_limit, steer.time_limit),
        *(steer.add_consumer, steer.cancel_consumer),
        *(steer.enable_events, steer.disable_events, steer.heartbeat),
        *(steer.pool_grow, steer.pool_shrink, steer.autoscale, steer.pool_restart),
        steer.shutdown,
    )
} | {
    "dump_conf": inspect.conf,
    "dump_active": inspect.active,
    "dump_reserved": inspect.reserved,
    "dump_schedule": inspect.scheduled,
    "dump_revoked": inspect.revoked,
    "dump_tasks": inspect.registered,
}
"""Every command, by Celery's names, the older ones too."""


_ABSENT = {
    "memsample": "the memory of a worker is for its host to tell: `ps`, or /proc",
    "memdump": "the memory of a worker is for its host to tell: `ps`, or /proc",
    "objgraph": "objects of a worker are not drawn; attach a profiler to its process",
    "election": "workers of beatd elect nobody: its schedulers have a leader",
}
"""Commands of Celery's workers that beatd has not, and why."""


def _unknown(method: str) -> Exception:
    """Return the error of a command that there is not: Celery's, or why it is not."""
    if method in _ABSENT:
        return NotImplementedError(f"{method} is not answered: {_ABSENT[method]}")
    return KeyError(method)


def execute(worker: Controlled, command: Command) -> None:
    """Execute a command and answer it; never raises, whatever the command holds."""
    tell.debug("control.command", "remote control: %s", quoted(command.method))
    function = COMMANDS.get(command.method)
    try:
        if function is None:
            raise _unknown(command.method)
        value = function(worker, **read(function, command.arguments))
    except (
        Exception
    ) as error:  # a client may have sent anything: the error is the answer
        tell.error(
            "control.failed",
            "cannot execute %s: %s",
            quoted(command.method),
            one_line(repr_of(error)),
        )
        value = error_of(error)
    command.answer(value)
