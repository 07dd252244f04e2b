"""From settings to the objects that do the work: scheduler and worker are made here.

scheduler.py     a scheduler, its schedule file, lead and broker
choice.py        what one worker is told beside the settings, and its queues
runtime.py       the app that a worker runs, and what its runs need
worker_parts.py  what a worker consists of, and which part works with which
worker.py        a worker, its pool and broker; the children of its pool

No class makes those that it works with: they are handed in, and tests compose by hand,
with fakes. Others connect for themselves: an application when it first sends or reads
something (app/connections.py), and commands that look at what lies on a broker (cli/).
A test holds the list.
"""

from beatd.service.wiring.choice import WorkerChoice, queues_of, router_of
from beatd.service.wiring.runtime import loaded_app_of
from beatd.service.wiring.scheduler import (
    TAKEN_ONCE,
    ask_results_aside,
    entries_elsewhere,
    needs_restart,
    scheduler_of,
)
from beatd.service.wiring.worker import run_child_of, worker_of

__all__ = [
    "TAKEN_ONCE",
    "WorkerChoice",
    "ask_results_aside",
    "entries_elsewhere",
    "loaded_app_of",
    "needs_restart",
    "queues_of",
    "router_of",
    "run_child_of",
    "scheduler_of",
    "worker_of",
]
