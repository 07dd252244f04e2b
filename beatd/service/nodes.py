"""Names of nodes, and of the files that are named after them; Celery's patterns."""

import os
import re
import socket
from collections.abc import Mapping

from beatd.errors import ConfigError
from beatd.text import is_encodable, quoted


def node_name(pattern: str, here: str | None = None) -> str:
    """Return the name of a node: `w1@%h` is `w1@` and the name of the host, this one.

    What stands for the node alone, or for the host alone, is completed as Celery does:
    `w1` is `celery@w1`, and `w1@` lies on this host. Raises ConfigError.
    """
    if not is_encodable(pattern):
        problem = "expected a name that is text, for brokers and files"
        raise ConfigError(f"--hostname {quoted(pattern)}", [problem])
    here = here or socket.gethostname()
    first, at, second = pattern.partition("@")
    name, host = (first, second) if at else ("", first)
    whole = f"{name or 'celery'}@{host or here}"
    return _expanded(whole, _parts(here.partition(".")[0], here))


def path_of(pattern: str, node: str, place: int = 0) -> str:
    """Return the path that `pattern` means for a node.

    `%n` and `%h` are the two halves of the node's name, `%d` is the host's domain,
    `%p` the whole. `%i` is the place of a process in its pool, 0 in the main process;
    `%I` is the same with a dash before it, and nothing in the main process. Raises
    ConfigError.
    """
    name, _, host = node.partition("@")
    return _expanded(pattern, {**_parts(name, host, place), "p": node})


def has_ended(holder: str) -> bool:
    """Return whether who holds a lead was a process of this host that is gone.

    It may hold the lead still, for a few seconds.
    """
    host, _, pid = holder.rpartition(" pid ")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def is_of_one_process(pattern: str) -> bool:
    """Return whether each process of a pool has a path of its own by this pattern."""
    return bool(re.search("%[iI]", pattern.replace("%%", "")))


def _parts(name: str, host: str, place: int = 0) -> Mapping[str, str]:
    return {
        "n": name,
        "h": host,
        "d": host.partition(".")[2],
        "i": str(place),
        "I": f"-{place}" if place else "",
        "%": "%",
    }


def _expanded(pattern: str, parts: Mapping[str, str]) -> str:
    def part(found: re.Match[str]) -> str:
        if found[1] in parts:
            return parts[found[1]]
        known = ", ".join(f"%{key}" for key in parts)
        problem = f"{found[0]} stands for nothing; known are {known}"
        raise ConfigError(repr(pattern), [problem])

    return re.sub(r"%([%\w])", part, pattern)
