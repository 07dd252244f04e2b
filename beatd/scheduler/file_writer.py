"""The schedule file follows the emission, written by a thread of its own."""

from threading import Event

from beatd.background import Service
from beatd.instant import SECOND, Span
from beatd.scheduler.ledger_file import LedgerFile

REST: Span = SECOND // 4
"""How long to rest after a write: what is recorded meanwhile goes together."""


class FileWriter:
    """Writes the schedule file soon after it was told something.

    The broker's ledger has all of that already, and alone is right: a process that is
    killed meanwhile leaves a file that is behind by what it had not written.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        self._asked = Event()
        self.service = Service(self._step, self._asked.set)

    def ask(self) -> None:
        """Have the file written, without waiting for that."""
        self._asked.set()

    def _step(self) -> Span:
        self._asked.wait()
        # Before the write: what is recorded during that needs another one.
        self._asked.clear()
        self._file.flush()
        return REST
