"""The place of this process in its pool: from 1 up, and 0 in the main process.

A child that is replaced leaves its place to the one that follows, so that what is named
after places (files of the log) does not grow in number.
"""

import multiprocessing

_taken = 0


def here() -> int:
    """Give the place of this process."""
    return _taken


def take(place: int) -> None:
    """Have this process be a child at that place; logs call it by Celery's name."""
    global _taken
    _taken = place
    multiprocessing.current_process().name = f"ForkPoolWorker-{place}"
