"""`beatd dead`: messages that workers have set aside; to retry or to drop."""

import base64
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any
from zoneinfo import ZoneInfo

import click

from beatd.brokers.base import Broker
from beatd.brokers.items import DeadLetter
from beatd.cli.options import COLOR, JSON, SOURCE, wanted
from beatd.cli.output import (
    Failure,
    Screen,
    confirmed,
    document,
    moment,
    screen,
    short_moment,
    since,
    stamps,
)
from beatd.cli.usage import (
    CONFIG,
    NOTHING,
    UNAVAILABLE,
    USAGE,
    Whole,
    exit_statuses,
    group_of,
)
from beatd.clock import SystemClock
from beatd.config.loading import load
from beatd.config.settings import Settings, file_of_url, mask_url
from beatd.instant import Instant
from beatd.text import counted, escaped

_SQUEEZED_NAME = 40  # columns that a task's name keeps on a terminal
_TIME, _AGO = 10, 8

EPILOG = exit_statuses(0, 1, USAGE, NOTHING, UNAVAILABLE, CONFIG)
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
LETTERS = click.argument("letters", nargs=-1, metavar="ID|GLOB...", required=True)


class NoLetter(Failure):
    """No dead letter has the id or the name that was given."""

    exit_code = NOTHING


@group_of("dead", EPILOG, invoke_without_command=True)
@SOURCE
@click.pass_context
def command(context: click.Context, /, **_: Any) -> None:
    """Messages that workers set aside: what cannot be read, run or survived.

    Without a command it lists them.

    Each has a number. Where ID|GLOB is asked for, that is a number, a task's id, or a
    pattern of tasks' names: 'shop.*' takes all of the shop's, '*' takes all.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_letters)


@command.command("list", epilog=EPILOG)
@SOURCE
@click.argument("letters", nargs=-1, metavar="[ID|GLOB]...")
@click.option("--limit", type=Whole(1), metavar="N", help="At most N.")
@JSON
@COLOR
@click.pass_context
def list_letters(
    context: click.Context,
    /,
    letters: Sequence[str],
    limit: int | None,
    as_json: bool,
    **_: Any,
) -> None:
    """What was set aside, the newest first."""
    with _broker(context) as (settings, broker):
        found = broker.dead_letters()
    place = mask_url(";".join(settings.read_urls))
    chosen = _chosen(found, letters) if letters else found
    newest = chosen[::-1][:limit]
    now = SystemClock().now()
    if as_json:
        click.echo(_document(newest, len(found), place, now, settings.zone))
        return
    out = screen(context)
    if not found:
        out.say(f"no dead letters at {place}: nothing was set aside.")
        if missing := _missing_file(settings.read_urls[0]):
            click.echo(missing, err=True)
        return
    for line in _table(newest, now, settings.zone, out):
        out.say(line)
    out.say()
    out.say(out.wrapped(_summary(newest, len(found), place)))


@command.command("show", epilog=EPILOG)
@SOURCE
@click.argument("letter", metavar="ID")
@click.option("--raw", is_flag=True, help="Only the message, byte for byte.")
@JSON
@COLOR
@click.pass_context
def show_letter(
    context: click.Context, /, letter: str, raw: bool, as_json: bool, **_: Any
) -> None:
    """All that is known of one but its arguments.

    They are in the message itself, which --raw and --json give.
    """
    with _broker(context) as (settings, broker):
        one = _chosen(broker.dead_letters(), [letter])[-1]
        needed = raw or as_json
        message = broker.dead_message(one.id) if needed else None
    now = SystemClock().now()
    if raw:
        sys.stdout.buffer.write(message or b"")
    elif as_json:
        data = {**_data(one, settings.zone), "message": _text_of(message or b"")}
        click.echo(document("beatd.dead.letter/1", now, settings.zone, letter=data))
    else:
        screen(context).say("\n".join(_description(one, now, settings.zone)))


@command.command("retry", epilog=EPILOG)
@SOURCE
@LETTERS
@YES
@click.pass_context
def retry_letters(
    context: click.Context, /, letters: Sequence[str], yes: bool, **_: Any
) -> None:
    """Put messages back at the ends of their queues, as if they were new.

    For a pattern it shows what that takes, and asks before it does.
    """
    refused: dict[str, str] = {}
    with _broker(context) as (settings, broker):
        chosen = _chosen(broker.dead_letters(), letters)
        if not yes and any(sign in pattern for pattern in letters for sign in "*?["):
            what = counted(len(chosen), "message")
            _ask(context, settings, chosen, f"put {what} back?", f"{what} not put back")
        ids = [letter.id for letter in chosen]
        number = broker.retry_dead(ids, refused.__setitem__)
    if number:
        back = [letter for letter in chosen if letter.id not in refused]
        queues = Counter(escaped(letter.queue) for letter in back)
        where = ", ".join(f"{name} {count}" for name, count in sorted(queues.items()))
        screen(context).say(f"put back {counted(number, 'message')}: {where}")
    if refused:
        left = [letter for letter in chosen if letter.id in refused]
        why = "\n".join(_why_not(letter, refused) for letter in left)
        what = f"{counted(len(left), 'message')} not put back, still set aside"
        raise Failure(f"{what}\n{why}")


@command.command("drop", epilog=EPILOG)
@SOURCE
@LETTERS
@YES
@click.pass_context
def drop_letters(
    context: click.Context, /, letters: Sequence[str], yes: bool, **_: Any
) -> None:
    """Remove messages for ever; shows them, and asks before it does."""
    with _broker(context) as (settings, broker):
        chosen = _chosen(broker.dead_letters(), letters)
        what = counted(len(chosen), "message")
        if not yes:
            question = f"drop {what} for ever?"
            _ask(context, settings, chosen, question, f"{what} not dropped")
        number = broker.drop_dead([letter.id for letter in chosen])
    screen(context).say(f"dropped {counted(number, 'message')}")


def _ask(
    context: click.Context,
    settings: Settings,
    chosen: Sequence[DeadLetter],
    question: str,
    refusal: str,
) -> None:
    """Show messages and ask. Raises Failure for a no, and where nobody can answer."""
    now, out = SystemClock().now(), screen(context)
    for line in _table(chosen[::-1], now, settings.zone, out):
        click.echo(line, err=True)
    if not confirmed(question):
        raise Failure(f"{refusal}\n  without a question:  --yes")


def _why_not(letter: DeadLetter, refused: Mapping[str, str]) -> str:
    return f"  {letter.id} to {escaped(letter.queue)}: {escaped(refused[letter.id])}"


@contextmanager
def _broker(context: click.Context) -> Iterator[tuple[Settings, Broker]]:
    """Yield the config's settings, and the broker that its workers take from."""
    from beatd import brokers

    settings = load(replace(wanted(context), unjudged=["beat_scheduler"])).settings
    broker = brokers.for_workers(settings, settings.read_urls)
    try:
        yield settings, broker
    finally:
        broker.close()


def _chosen(found: Sequence[DeadLetter], patterns: Sequence[str]) -> list[DeadLetter]:
    """Return the dead letters that match a pattern; each pattern must match some."""
    matched: set[str] = set()
    for pattern in patterns:
        named = {one.id for one in found if _is_named(one, pattern)}
        if not named:
            all_letters = "all of them: beatd dead list"
            raise NoLetter(f"no dead letter is named by {pattern!r}\n  {all_letters}")
        matched |= named
    return [one for one in found if one.id in matched]


def _is_named(letter: DeadLetter, pattern: str) -> bool:
    if pattern in (letter.id, letter.task_id):
        return bool(pattern)
    return fnmatchcase(letter.task, pattern)


# For people ------------------------------------------------------------------------


def _table(
    letters: Sequence[DeadLetter], now: Instant, zone: ZoneInfo, out: Screen
) -> Sequence[str]:
    """Return the head and a line for each letter; reasons are cut where too long."""
    head = ("ID", f"SET ASIDE ({zone})", "QUEUE", "TASK", "TRIES", "REASON")
    rows = [head, *(_row(letter, now, zone, out) for letter in letters)]
    return out.table(rows)


def _row(
    letter: DeadLetter, now: Instant, zone: ZoneInfo, out: Screen
) -> tuple[str, ...]:
    task = out.shown(letter.task) or "-"
    if out.width is not None:
        task = out.cut(task, _SQUEEZED_NAME)
    at = short_moment(letter.at, now, zone)
    return (
        letter.id,
        f"{at:{_TIME}}{since(letter.at, now):>{_AGO}}",
        out.shown(letter.queue),
        task,
        str(letter.deliveries),
        out.shown(letter.reason),
    )


def _summary(letters: Sequence[DeadLetter], total: int, place: str) -> str:
    number = counted(total, "message")
    if len(letters) < total:
        number = f"{len(letters)} of {number}"
    ways = "beatd dead retry ID puts one back to its queue, drop ID removes it."
    return f"{number} at {place}.  {ways}"


def _missing_file(url: str) -> str:
    """Return words about a broker's file if it is not there."""
    path = file_of_url(url)
    if path is None or path.exists():
        return ""
    return (
        f"there is no file {path} yet: workers that were started elsewhere, or with"
        " another --schedule-filename or --broker, have theirs there"
    )


def _description(letter: DeadLetter, now: Instant, zone: ZoneInfo) -> Iterator[str]:
    ago = f"{moment(letter.at, now, zone)}, {since(letter.at, now)} ago"
    yield f"dead letter {letter.id}"
    yield f"  reason      {escaped(letter.reason)}"
    yield f"  task        {escaped(letter.task) or 'unknown'}"
    yield f"  task id     {escaped(letter.task_id) or 'unknown'}"
    yield f"  queue       {escaped(letter.queue)}"
    yield f"  set aside   {ago} ({zone}), by {escaped(letter.worker)}"
    yield f"  deliveries  {letter.deliveries}"
    yield f"  message     {letter.size:,} bytes: beatd dead show {letter.id} --raw"
    yield ""
    yield f"back to its queue: beatd dead retry {letter.id}"


# For programs ----------------------------------------------------------------------


def _document(
    letters: Sequence[DeadLetter],
    total: int,
    place: str,
    now: Instant,
    zone: ZoneInfo,
) -> bytes:
    return document(
        "beatd.dead/1",
        now,
        zone,
        zone=str(zone),
        broker=place,
        total=total,
        letters=[_data(letter, zone) for letter in letters],
    )


def _data(letter: DeadLetter, zone: ZoneInfo) -> dict[str, object]:
    return {
        "id": letter.id,
        "queue": letter.queue,
        "task": letter.task or None,
        "task_id": letter.task_id or None,
        "reason": letter.reason,
        **stamps("at", letter.at, zone),
        "deliveries": letter.deliveries,
        "worker": letter.worker,
        "size": letter.size,
    }


def _text_of(message: bytes) -> dict[str, str]:
    """Return a message for JSON: as text if it is text, else in base64."""
    try:
        return {"text": message.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode()}
