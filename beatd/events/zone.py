"""The zone that tasks see as local time."""

import os
from datetime import UTC, tzinfo
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from beatd.clock import set_local_time


@cache
def machine_zone() -> tzinfo:
    """Return the machine's own zone, even after `local_time` has set another."""
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return ZoneInfo(name)
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):  # KeyError: no zone of that name
        return UTC


def local_time(zone: str) -> None:
    """Make `zone` the local time of this process and of those it starts.

    Called before any thread is started and before the pool forks.
    """
    machine_zone()  # cached while the environment still has it
    set_local_time(zone)
