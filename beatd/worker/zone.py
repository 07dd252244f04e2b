"""The zone that tasks see as local time."""

import os
import time


def local_time(zone: str) -> None:
    """Make `zone` the local time of this process and of those it starts.

    Called before any thread is started and before the pool forks.
    """
    os.environ["TZ"] = zone
    time.tzset()
