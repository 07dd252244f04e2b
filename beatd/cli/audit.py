"""`beatd audit`: whether every slot of a stretch of time is accounted for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from beatd.cli.options import COLOR, JSON, SOURCE, wanted
from beatd.cli.output import (
    SQUEEZED_NAME,
    Screen,
    columns_of,
    document,
    screen,
    stamps,
)
from beatd.cli.past import PastView, at_second, full, lateness, lost_data, past_view
from beatd.cli.schedule_view import chosen
from beatd.cli.times import past_instant
from beatd.cli.usage import CONFIG, NOTHING, UNAVAILABLE, USAGE, exit_statuses
from beatd.clock import SystemClock
from beatd.config.loading import load
from beatd.instant import DAY, SECOND, Instant, Span
from beatd.service.wiring.looking import ledger_of
from beatd.text import counted
from beatd.timetable.audit import WAITS_LONG, Account, Accounted, Audit
from beatd.timetable.entry import Entry
from beatd.timetable.ledger import Mark

_MOST = 1_000_000
"""The most slots of one entry that are looked up."""

_NAMED = 20
"""The most slots in trouble that are named for people."""

_TROUBLE = (Account.MISSING, Account.UNCERTAIN, Account.WAITING)


@dataclass
class Found:
    """What was found of one entry."""

    entry: Entry
    counts: Counter[Account] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Of slots that were dropped."""
    latest: Span = 0
    """The largest lateness."""
    trouble: list[tuple[Instant, Account]] = field(default_factory=list)
    waits_long: int = 0
    is_whole: bool = True
    """Whether all slots were looked up: there may be too many."""
    slots: list[Accounted] = field(default_factory=list)
    """Each slot, where all are asked for."""

    @property
    def is_fine(self) -> bool:
        """Whether each slot is accounted for, as far as the history reaches."""
        return not (self.counts[Account.MISSING] or self.waits_long)


@click.command(
    "audit",
    context_settings={"max_content_width": 100},
    epilog=exit_statuses(0, 1, USAGE, NOTHING, UNAVAILABLE, CONFIG),
)
@SOURCE
@click.argument("entries", nargs=-1, metavar="[ENTRY|GLOB]...")
@click.option("--from", "begin", metavar="TIME", help="[default: 24 hours before]")
@click.option("--to", "end", metavar="TIME", help="[default: now]")
@click.option(
    "--slots", "names_all", is_flag=True, help="Name every slot, not only the numbers."
)
@JSON
@COLOR
@click.pass_context
def command(
    context: click.Context,
    /,
    entries: Sequence[str],
    begin: str | None,
    end: str | None,
    names_all: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Account for every slot that the schedule names in a stretch of time.

    A slot was sent, was dropped for a reason, is uncertain as the broker lost it,
    waits, or is missing: that is told by exit status 1, and so is one that has waited
    for more than a minute. Where the history does not reach, slots are unknown. TIME is
    '15:00', '2027-03-28' or '2027-03-28 02:30', in the config's time zone.
    """
    now = SystemClock().now()
    config = load(wanted(context))
    marks = ledger_of(config).marks  # before the history, which goes on meanwhile
    known = past_view(config)
    zone = known.zone
    last = now if end is None else past_instant("--to", end, zone, now)
    first = last - DAY
    if begin is not None:
        first = past_instant("--from", begin, zone, last)
    if first > last:
        raise click.BadParameter(f"{begin!r} lies after the end", param_hint="--from")
    usable, bad = chosen(known.config, entries)
    found = [
        _look(known, entry, marks.get(entry.name), (first, last), now, names_all)
        for entry in usable
    ]
    if bad:
        hint = f"{counted(len(bad), 'entry')} cannot be used: beatd check"
        click.echo(hint, err=True)
    if as_json:
        click.echo(_document(known, found, first, last, now))
    else:
        out = screen(context)
        out.say("\n".join(_report(known, found, (first, last), now, out)))
    context.exit(0 if all(one.is_fine for one in found) else 1)


def _look(
    known: PastView,
    entry: Entry,
    mark: Mark | None,
    stretch: tuple[Instant, Instant],
    now: Instant,
    names_all: bool,
) -> Found:
    past = known.history.of(entry.name)
    audit = Audit(entry, mark, past, known.history.lost)
    found = Found(entry)
    slots = audit.slots(*stretch, now)
    for accounted in islice(slots, _MOST):
        slot, account, record = accounted
        if names_all:
            found.slots.append(accounted)
        found.counts[account] += 1
        if account is Account.DROPPED and record:
            found.reasons[record.why] += 1
        if account is Account.SENT and record:
            found.latest = max(found.latest, record.late - entry.offset)
        if account in _TROUBLE:
            found.trouble.append((slot, account))
        if account is Account.WAITING and slot + entry.offset + WAITS_LONG < now:
            found.waits_long += 1
    found.is_whole = next(slots, None) is None
    return found


# For people ------------------------------------------------------------------------


def _report(
    known: PastView,
    found: Sequence[Found],
    stretch: tuple[Instant, Instant],
    now: Instant,
    out: Screen,
) -> list[str]:
    zone = known.zone
    head = ["ENTRY", "SLOTS", "SENT", "WORST", "DROPPED", "UNCERTAIN"]
    rows = [[*head, "UNKNOWN", "WAITING", "MISSING"]]
    rows += [_row(one, out) for one in found if one.counts]
    lines = [*out.table(_fitting(rows, out)), ""] if len(rows) > 1 else []
    if any(one.slots for one in found):
        lines += [*out.table(_slot_rows(known, found, now, out)), ""]
    trouble = sorted(
        (slot, one.entry.name, account)
        for one in found
        for slot, account in one.trouble
    )
    for slot, name, account in trouble[:_NAMED]:
        lines.append(f"{account}: {out.shown(name)} {at_second(slot, now, zone)}")
    if len(trouble) > _NAMED:
        lines.append(f"and {len(trouble) - _NAMED} more: --json names all")
    if trouble:
        lines.append("")
    lines += map(out.wrapped, [_verdict(found, stretch, zone), known.reach])
    lines += [
        f"{out.shown(one.entry.name)}: only the first {_MOST:,} slots were looked up"
        for one in found
        if not one.is_whole
    ]
    return lines


def _fitting(rows: Sequence[Sequence[str]], out: Screen) -> Sequence[Sequence[str]]:
    """Return the table; where it is too wide, without columns that have only zeros."""
    if out.width is None or max(map(len, columns_of(rows))) <= out.width:
        return rows
    head, *others = rows
    kept = [
        place
        for place, title in enumerate(head)
        if title == "MISSING" or {row[place] for row in others} != {"0"}
    ]
    return [[row[place] for place in kept] for row in rows]


def _row(found: Found, out: Screen) -> list[str]:
    counts = found.counts
    sent = counts[Account.SENT]
    reasons = ", ".join(f"{n} {why}" for why, n in found.reasons.most_common())
    name = out.shown(found.entry.name)
    return [
        name if out.width is None else out.cut(name, SQUEEZED_NAME),
        str(counts.total()),
        str(sent),
        lateness(found.latest) if sent else "",
        reasons or "0",
        *(
            str(counts[account])
            for account in (
                Account.UNCERTAIN,
                Account.UNKNOWN,
                Account.WAITING,
                Account.MISSING,
            )
        ),
    ]


def _slot_rows(
    known: PastView, found: Sequence[Found], now: Instant, out: Screen
) -> list[list[str]]:
    rows = [["ENTRY", f"SLOT ({known.zone})", "", "LATE", "WHY"]]
    for one in found:
        name = out.shown(one.entry.name)
        for slot, account, record in one.slots:
            late = record is not None and account is Account.SENT
            rows.append(
                [
                    name if out.width is None else out.cut(name, SQUEEZED_NAME),
                    at_second(slot, now, known.zone),
                    str(account),
                    lateness(record.late - one.entry.offset) if late and record else "",
                    out.shown(record.why) if record else "",
                ]
            )
    return rows


def _verdict(
    found: Sequence[Found], stretch: tuple[Instant, Instant], zone: ZoneInfo
) -> str:
    total: Counter[Account] = Counter()
    for one in found:
        total.update(one.counts)
    begin, end = stretch
    where = f"{full(begin, zone)} to {full(end, zone)} ({zone})"
    slots = counted(total.total(), "slot")
    missing, waits = total[Account.MISSING], sum(one.waits_long for one in found)
    parts = [f"{slots}, {where}:"]
    if missing:
        parts.append(f"{counted(missing, 'slot')} missing.")
    if waits:
        parts.append(f"{counted(waits, 'slot')} waiting for more than a minute.")
    if unknown := total[Account.UNKNOWN]:
        parts.append(f"{unknown} unknown, as the history does not reach there.")
    if uncertain := total[Account.UNCERTAIN]:
        parts.append(f"{uncertain} uncertain.")
    if not (missing or waits) and unknown < total.total():
        rest = "Every other slot is" if unknown or uncertain else "every slot is"
        parts.append(f"{rest} accounted for.")
    return " ".join(parts)


# For programs ----------------------------------------------------------------------


def _document(
    known: PastView,
    found: Sequence[Found],
    first: Instant,
    last: Instant,
    now: Instant,
) -> bytes:
    zone = known.zone
    return document(
        "beatd.audit/1",
        now,
        zone,
        zone=str(zone),
        broker=known.place,
        **stamps("from", first, zone),
        **stamps("to", last, zone),
        **stamps("since", known.history.since, zone),
        lost=lost_data(known.history, zone),
        fine=all(one.is_fine for one in found),
        entries=[
            {
                "name": one.entry.name,
                "slots": one.counts.total(),
                **{str(account): one.counts[account] for account in Account},
                "reasons": [
                    {"reason": why, "slots": number}
                    for why, number in one.reasons.most_common()
                ],
                "worst_late": one.latest / SECOND,
                "whole": one.is_whole,
                "trouble": [
                    {"what": str(account), **stamps("slot", slot, zone)}
                    for slot, account in one.trouble
                ],
                **({"each": _each(one, zone)} if one.slots else {}),
            }
            for one in found
        ],
    )


def _each(found: Found, zone: ZoneInfo) -> list[dict[str, object]]:
    return [
        {
            "what": str(account),
            **stamps("slot", slot, zone),
            **stamps("at", record.at if record else None, zone),
            "reason": record.why or None if record else None,
        }
        for slot, account, record in found.slots
    ]
