"""The name of the machine's own time zone: local time."""

import os
from functools import cache
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, available_timezones

_FILE = Path("/etc/localtime")


@cache
def local_zone() -> str | None:
    """Return the name of the zone of local time; None if it has no name.

    Read once: a worker makes the zone of its settings the local time of its process.
    """
    if name := os.environ.get("TZ", "").removeprefix(":"):
        return name if name in available_timezones() else None
    if not _FILE.exists():
        return "UTC"
    file = _FILE.resolve()
    for folder in map(Path, TZPATH):
        if file.is_relative_to(folder):
            name = str(file.relative_to(folder))
            return name.removeprefix("posix/").removeprefix("right/")
    return _of_equal_rules(_FILE)


def _of_equal_rules(file: Path) -> str | None:
    """Return a zone whose file is the same, byte for byte: `file` may be a copy."""
    rules = file.read_bytes()
    for folder in map(Path, TZPATH):
        for name in sorted(available_timezones()):
            path = folder / name
            if path.is_file() and path.read_bytes() == rules:
                return ZoneInfo(name).key
    return None
