"""What a scheduler says of the ledger with which it begins a term."""

from beatd.event_log import EventLog, stamp
from beatd.instant import SECOND, Instant, Span
from beatd.text import counted
from beatd.timetable.ledger import Edition, Finding, LedgerCopy, latest
from beatd.timetable.timetable import CLOCK_TOLERANCE

tell = EventLog(__name__)


def say_finding(
    what: Finding,
    found: LedgerCopy,
    ours: LedgerCopy,
    told: Edition,
    *,
    led_last: bool,
    knows_most: bool,
) -> None:
    """Log which ledger is right, if it is not the broker's alone."""
    if what is Finding.MISSING and ours.marks:
        tell.warning(
            "ledger.founded",
            "the broker has lost its ledger: it is made anew from version %d, %s",
            ours.edition.version,
            "which this process led with itself"
            if led_last
            else "a copy: what was emitted after that may be emitted once more",
            entries=len(ours.marks),
        )
    if what in (Finding.SET_BACK, Finding.RIGHT) and not knows_most:
        tell.warning(
            "ledger.gap",
            "the broker's data were set back, and the scheduler that led does not"
            " come back: what it emitted after version %d of its ledger may be"
            " emitted once more",
            max(found.edition.version, ours.edition.version),
        )
    if what is Finding.OTHER:
        tell.warning(
            "ledger.other",
            "the broker has another ledger (%s) than the one that is known here"
            " (%s): the broker's is right, what is known here is not used",
            found.edition.lineage,
            latest(ours.edition, told).lineage,
        )


def say_rewound(number: int, to: Instant, era: int, ahead: Span, off: Span) -> None:
    """Log a rewind, and which clock is off.

    The ledger was `ahead` of this host's clock, which showed `to`, and is `off` from
    the broker's.
    """
    if abs(off) <= CLOCK_TOLERANCE:
        which = (
            "this host's clock agrees with the broker's: it was set back, or the clock"
            " of the host that led before ran ahead"
        )
    else:
        way = "behind" if off < 0 else "ahead of"
        which = (
            f"this host's clock is {abs(off) / SECOND:.1f} s {way} the broker's: one of"
            " the two is wrong, set it right (NTP)"
        )
    tell.warning(
        "clock.rewound",
        "the ledger was up to %.1f s ahead of this host's clock; %s; clock"
        " era %d begins at %s, for %s",
        ahead / SECOND,
        which,
        era,
        stamp(to),
        counted(number, "entry"),
        to=to,
        ahead=ahead,
        off=off,
    )
