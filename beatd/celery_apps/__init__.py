"""A Celery app as it is: its tasks, run by Celery's own tracer.

reading.py  before the first run: the app is made ready, its tasks are read
signals.py  what happens, told to the receivers of Celery's signals
runner.py   runs, in the process that runs the task
results.py  what the worker's loop itself finds out of runs, kept by Celery

What belongs to one run is Celery's doing, in the process that runs the task: signals,
states and results, retries, callbacks, chains, groups and chords. What lies around it
is ours: delivery, pools, limits, and what becomes of the message. A message is settled
after Celery has kept the result and sent what follows; if the worker dies in between,
the message is delivered again and the task runs once more.

Celery is the user's: it is there when an app of it is, and imported by then.
"""
