"""A Celery app as it is: its tasks are run by Celery's own tracer.

reading.py    before the first run: prepares the app and reads its tasks
signals.py    sends beatd's signals to the receivers of Celery's signals
processes.py  begins and ends processes of the pool as Celery's pool does
requests.py   Celery's request objects
runner.py     runs tasks, in the processes of the pool
results.py    has Celery store the ends of runs that only the worker's loop knows
out_of_reach.py      what the app has and beatd does not use
other_schedulers.py  entries that other schedulers of Celery's keep

Celery does what belongs to one run, in the process that runs the task: signals, states
and results, retries, callbacks, chains, groups and chords. beatd does what lies around
it: delivery, pools, limits, and what becomes of the message. A message is settled after
Celery has stored the result and sent what follows; if the worker dies in between, the
message is delivered again and the task runs once more.

beatd does not depend on Celery: an app has imported it before this package is used.
"""
