"""From settings to the objects that do the work: scheduler and worker are made here.

scheduler.py     a scheduler, its schedule file, lead and broker
answering.py     what answers questions about a scheduler
choice.py        what one worker is told beside the settings, and its queues
runtime.py       the app that a worker runs, and what its runs need
worker_parts.py  what a worker consists of, and which part works with which
worker.py        a worker, its pool and broker; the children of its pool

No class makes those that it works with: they are handed in, and tests compose by hand,
with fakes. Others connect for themselves: an application when it first sends or reads
something (app/connections.py), and commands that look at what lies on a broker (cli/).
A test holds the list.

None is imported here: a scheduler alone has no use for a worker.
"""
