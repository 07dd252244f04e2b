"""What the scheduler asks of its schedule file."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from beatd.brokers.items import idle
from beatd.instant import Instant
from beatd.timetable.ledger import NO_EDITION, Edition, LedgerCopy, Mark


class LedgerFile(Protocol):
    """The schedule file as the scheduler uses it.

    No method raises for a file that cannot be used just now: the file logs that once,
    keeps in memory what was recorded, and tries again. All are called by the loop;
    `flush` by another thread, too, for which neither `record` nor `note_...` waits.
    """

    def try_lock(self) -> bool:
        """Lock the file for this process; return False while another one has it."""
        ...

    def unlock(self) -> None:
        """Let other processes take the file."""
        ...

    def read(self, on_part: Callable[[], object] = idle) -> LedgerCopy:
        """Return the ledger as it was last written.

        Calls `on_part` again and again, where reading may take as long as a lead lives.
        """
        ...

    def highest_term(self) -> int:
        """Return the largest term number seen."""
        ...

    def keep_as(self, lineage: str) -> None:
        """Keep the file under the name of a lineage, and begin a new one."""
        ...

    def rewrite(
        self,
        marks: Mapping[str, Mark],
        gone: Collection[str],
        era: int,
        term: int,
        edition: Edition = NO_EDITION,
        on_part: Callable[[], object] = idle,
    ) -> None:
        """Write what makes the file agree with this ledger and term, at once.

        What the file has of `gone` is removed first, counts of drops included.
        `on_part` is called as by `read`; what it raises leaves the file as it was, and
        the next flush writes it.
        """
        ...

    def record(
        self,
        marks: Mapping[str, Mark],
        dropped: Mapping[tuple[str, str], int],
        version: int | None = None,
    ) -> None:
        """Have the next flush write these rows, and add to the counts of drops.

        `version` is that of the ledger with these rows; None if that has not changed.
        """
        ...

    def note_uncertain(self, slots: Mapping[str, Sequence[Instant]]) -> None:
        """Have the next flush write slots of which it is not known whether they ran."""
        ...

    def note_config(self, digest: str) -> None:
        """Have the next flush write by which entries this process leads."""
        ...

    def note_over(
        self, over: Collection[str], entries: Collection[str]
    ) -> Collection[str]:
        """Have the next flush write which of these entries are over by their bounds.

        Returns those that were not when that was written last; none if it never was, or
        if they are very many.
        """
        ...

    def note_refused(self, refused: Mapping[str, str]) -> None:
        """Have the next flush write which entries the broker refuses, and why."""
        ...

    def note_held(self, held: Mapping[str, str]) -> None:
        """Have the next flush write which entries wait for their runs for too long."""
        ...

    def flush(self) -> None:
        """Write what was recorded, in one transaction."""
        ...
