"""The place of this process in its pool: from 1 up, and 0 in the main process.

A child that is replaced leaves its place to the one that follows, so that what is named
after places (files of the log) does not grow in number.
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
