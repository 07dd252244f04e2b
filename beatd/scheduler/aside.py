"""Leaving the lead to the former leader, who knows best what the broker has lost."""

from dataclasses import dataclass, field

from beatd.clock import Clock
from beatd.errors import TermOver
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.scheduler.leadership import Leadership
from beatd.timetable.ledger import NO_EDITION, Edition, Finding, LedgerCopy, latest

tell = EventLog(__name__)


@dataclass
class Aside:
    """Whether this process steps aside, so that the former leader leads again."""

    leadership: Leadership
    clock: Clock
    _until: Span | None = field(default=None, init=False)
    """Until when; None once the broker's ledger was seen to be whole."""
    _told: Edition = field(default=NO_EDITION, init=False)
    """What was known of the leader's ledger when it stepped aside."""
    _found: Edition = field(default=NO_EDITION, init=False)
    """What the broker's ledger was at then."""

    @property
    def is_on(self) -> bool:
        """Whether this process must not ask for the lead now, even if it is free."""
        return self._until is not None and self.clock.elapsed() < self._until

    def end(self) -> None:
        """Note that the broker's ledger is whole."""
        self._until = None

    def note_ledger(self, found: Edition) -> None:
        """Note what the broker's ledger is at: somebody leads if that has changed."""
        if found != self._found:
            self._until = None

    def knows_most(
        self, what: Finding, found: Edition, ours: Edition, *, led_last: bool
    ) -> bool:
        """Return whether nobody else can know more of what the broker has lost.

        The former leader knows all that it emitted, others only what they saw of that:
        too little to tell whether a lead that came early has lost data with it. `ours`
        is what the ledger was at by this process's last write. Raises
        BrokerUnavailable.
        """
        if what is Finding.OTHER or self.leadership.lead.lead_outlives_data:
            return True
        if what is Finding.RIGHT:
            is_doubted = self._until is not None and found == self._found
            if not (is_doubted or self.leadership.came_early()):
                return True
        return led_last and latest(self.leadership.told, ours) == ours

    def has_waited(self, ours: LedgerCopy) -> bool:
        """Return whether this process has waited for this former leader already."""
        told = self.leadership.told
        whole_again = told != self._told and told.version >= ours.edition.version
        return self._until is not None and not whole_again

    def step(
        self, what: Finding, ours: LedgerCopy, found: Edition, wait: Span
    ) -> TermOver:
        """Give back the lead of a broker that has lost data, until a leader renewed.

        If no former leader lives, this process takes the lead again after that time.
        Return what is to be raised.
        """
        self._until = self.clock.elapsed() + wait
        self._told, self._found = self.leadership.told, found
        if ours.marks or ours.edition.lineage:
            tell.warning(
                "lead.aside",
                "the broker has lost data%s: the former leader is to lead again,"
                " this process waits %.1f s for it",
                ", as the lead came free before its time"
                if what is Finding.RIGHT
                else "",
                wait / SECOND,
            )
        else:
            tell.info(
                "lead.aside",
                "the broker has no ledger yet: waiting %.1f s, in case that it has"
                " lost one and the scheduler that leads comes back",
                wait / SECOND,
            )
        self.leadership.resign()
        return TermOver("the lead was left to the former leader")
