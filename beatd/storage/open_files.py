"""The SQLite files that this process uses, closed when it ends.

Whoever closes a file last has SQLite move the WAL into it, and remove what lies beside
it. A process that ends without that leaves both behind.
"""

from typing import Protocol
from weakref import WeakSet


class OpenFile(Protocol):
    """Lends connections to a file."""

    def close(self) -> None:
        """Close the connections that nobody uses, and all others once they are free."""
        ...


_open: "WeakSet[OpenFile]" = WeakSet()


def note_open(file: OpenFile) -> None:
    """Have a file closed at the end of this process, unless it is gone before."""
    _open.add(file)


def close_files() -> None:
    """Close all files: this process ends."""
    for file in [*_open]:
        file.close()
