"""What users hold: an application that sends tasks and reads their results.

application.py     `Beatd`
default.py         the one of calls that name none
celery_names.py    what Celery's app has beside
django.py          Django around its tasks
conf.py            its settings, from a config and from code
annotations.py     what settings change in its tasks
discovery.py       modules of its tasks, found in packages
announcement.py    events of its start
connections.py     of one process, to the broker and the result backend
client_results.py  results, read through them
sending.py         messages of calls, sent through them
calls.py           calls, completed by settings and the run that makes them
publishing.py      signals around that, and further tries
recorder.py        calls that are kept and not sent
entry_calls.py     those of entries, for the scheduler
remote_control.py  commands to workers
"""

from beatd.app import default  # noqa: F401 - it says what `current_app` makes
from beatd.app.application import Beatd
from beatd.tasks import AsyncResult
from beatd.tasks.current import current_app
from beatd.tasks.shared import current_task, shared_task

__all__ = ["AsyncResult", "Beatd", "current_app", "current_task", "shared_task"]
