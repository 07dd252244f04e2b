"""What users hold: an application that sends tasks and reads their results.

conf.py         settings, from whatever they are given in
connections.py  what one process sends and reads results through
application.py  `Beatd`, and tasks that belong to no application in particular
"""

from beatd.app.application import Beatd, shared_task
from beatd.tasks.async_result import AsyncResult
from beatd.tasks.current import current_app

__all__ = ["AsyncResult", "Beatd", "current_app", "shared_task"]
