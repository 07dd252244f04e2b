"""The place of this process in its pool: from 1 up; 0 in the main process.

A child leaves its place to the child that replaces it, so that things named after
places (log files) do not grow in number.
"""

import multiprocessing

_taken = 0


def here() -> int:
    """Return the place of this process."""
    return _taken


def take(place: int) -> None:
    """Put this process at that place, and name it in logs as Celery would."""
    global _taken
    _taken = place
    multiprocessing.current_process().name = f"ForkPoolWorker-{place}"
