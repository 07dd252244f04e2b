"""Warnings of `beatd check` about things that are allowed and yet seldom meant."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

from beatd.cli.schedule_view import line_of, written_in, zone_of
from beatd.config.loading import Config
from beatd.config.settings import BUILTIN_TASKS, Problem
from beatd.instant import DAY, SECOND, Instant, datetime_of
from beatd.schedules.clock_changes import clock_change_note
from beatd.schedules.cron import Cron
from beatd.schedules.days import members
from beatd.schedules.fields import ALL_MINUTES, Fields
from beatd.schedules.once import Once
from beatd.schedules.specs import cron
from beatd.text import counted
from beatd.timetable.entry import Entry

_YEAR = 366 * DAY
_CROWD = 5  # entries at one moment from which on to warn
_NAMED = 3  # entries that a warning names, at most
_FEW_HOURS = 3  # named with all their minutes: more of them are likely meant so
_MIDNIGHT = 1  # the first bit of a set of minutes, or of hours


def advice(config: Config, now: Instant) -> list[Problem]:
    """Return a warning for each thing that may surprise; equal ones are one."""
    return [
        *_clock_changes(config, now),
        *_crowded_midnights(config),
        *_short_intervals(config),
        *_unnamed_builtin_tasks(config),
        *_six_fields(config),
        *_each_minute_of_an_hour(config),
        *_over(config, now),
        *_soon_expired(config, now),
        *_other_addresses(config),
        *_log_formats(config),
    ]


def notes(config: Config) -> list[str]:
    """Return what is good to know, and nothing to mend."""
    called: dict[str, list[Entry]] = defaultdict(list)
    for entry in config.entries:
        if why := entry.message.made_anew:
            called[why].append(entry)
    built = "the message is built anew for each run"
    return [
        f"{_listed(entries).rstrip(',')}: {built}, since {why} (nothing to mend)"
        for why, entries in called.items()
    ]


def _clock_changes(config: Config, now: Instant) -> Iterator[Problem]:
    """Warn of entries at times that the next change of their clock affects."""
    affected: dict[tuple[ZoneInfo, Instant, str], list[Entry]] = defaultdict(list)
    seen: dict[str, tuple[Instant, str] | None] = {}
    for entry in config.entries:
        if not isinstance(entry.schedule, Cron) or entry.schedule.wildcard:
            continue
        schedule = entry.schedule
        if schedule.fingerprint not in seen:
            seen[schedule.fingerprint] = _next_effect(schedule, now)
        if effect := seen[schedule.fingerprint]:
            affected[(schedule.zone, *effect)].append(entry)
    for (zone, instant, note), entries in affected.items():
        day = f"{datetime_of(instant, zone):%a %-d %b %Y}"
        verb = "falls" if len(entries) == 1 else "fall"
        text = f"{_listed(entries)} {verb} into the clock change of {day}"
        yield _warning(config, entries, text, note)


def _next_effect(schedule: Cron, now: Instant) -> tuple[Instant, str] | None:
    """Return the first clock change within a year that affects a schedule, and how."""
    after = now
    while change := clock_change_note(schedule, schedule.zone, after):
        if change.instant > now + _YEAR:
            return None
        if change.affects:
            return change.instant, change.note
        after = change.instant
    return None


def _crowded_midnights(config: Config) -> Iterator[Problem]:
    crowds: dict[ZoneInfo, list[Entry]] = defaultdict(list)
    for entry in config.entries:
        if _is_at_midnight(entry):
            crowds[zone_of(entry, config.settings.zone)].append(entry)
    for zone, entries in crowds.items():
        if len(entries) >= _CROWD:
            text = f"{_listed(entries)} all run at 00:00, {zone}"
            hint = "spread them: other minutes, or 'jitter': 600 in each (beat_jitter)"
            yield _warning(config, entries, text, hint)


def _is_at_midnight(entry: Entry) -> bool:
    if not isinstance(entry.schedule, Cron) or entry.offset:
        return False
    fields = entry.schedule.fields
    in_time = fields.minutes & _MIDNIGHT and fields.hours & _MIDNIGHT
    return bool(in_time) and not fields.wildcard


def _short_intervals(config: Config) -> Iterator[Problem]:
    for entry in config.entries:
        interval = getattr(entry.schedule, "every", SECOND)
        if interval < SECOND:
            text = f"{_listed([entry])} runs every {interval} ms"
            hint = f"that is {DAY // interval:,} runs a day; numbers are seconds"
            yield _warning(config, [entry], text, hint)


def _unnamed_builtin_tasks(config: Config) -> Iterator[Problem]:
    """Warn of entries whose task no worker has that goes by this config."""
    for task in BUILTIN_TASKS:
        entries = [entry for entry in config.entries if entry.message.task == task]
        if entries and task not in config.settings.builtin_tasks:
            verb = "calls" if len(entries) == 1 else "call"
            text = f"{_listed(entries)} {verb} {task}, which no worker has by itself"
            names = [*config.settings.builtin_tasks, task]
            hint = f"set builtin_tasks = {names!r}, here or where the workers have it"
            yield _warning(config, entries, text, hint)


def _six_fields(config: Config) -> Iterator[Problem]:
    """Warn of cron expressions that others read with the seconds first."""
    meant: dict[cron, list[Entry]] = defaultdict(list)
    for entry in config.entries:
        written = written_in(config, entry.name)["schedule"]
        if isinstance(written, str):
            written = cron(written)
        if isinstance(written, cron) and written.other_reading:
            meant[written].append(entry)
    for spec, entries in meant.items():
        verb = "runs" if len(entries) == 1 else "run"
        text = f"{_listed(entries)} {verb} {spec.describe()}: the seconds come last"
        assert spec.other_reading
        hint = (
            f"with seconds='first' beside {spec.expression!r} in cron(...) it means"
            f" {spec.other_reading.describe()}; seconds='last' says that it is meant"
        )
        yield _warning(config, entries, text, hint)


def _each_minute_of_an_hour(config: Config) -> Iterator[Problem]:
    """Warn of entries that name some hours, and then run at each of their minutes."""
    for entry in config.entries:
        fields = getattr(entry.schedule, "fields", None)
        if not isinstance(fields, Fields) or fields.minutes != ALL_MINUTES:
            continue
        hours = list(members(fields.hours))
        if len(hours) <= _FEW_HOURS:
            times = " and ".join(f"{hour}:00 to {hour}:59" for hour in hours)
            text = f"{_listed([entry])} runs at each minute from {times}"
            hint = f"it runs once, at {hours[0]}:00, with 0 as its minute, not *"
            yield _warning(config, [entry], text, hint)


def _over(config: Config, now: Instant) -> Iterator[Problem]:
    """Warn of entries whose only slot, or whose end, has passed."""
    for entry in config.entries:
        if isinstance(entry.schedule, Once) and entry.schedule.slot < now:
            when = datetime_of(entry.schedule.slot, config.settings.zone)
            what = "its moment"
        elif entry.policy.end is not None and entry.policy.end < now:
            when = datetime_of(entry.policy.end, config.settings.zone)
            what = "its end_time"
        else:
            continue
        text = f"{_listed([entry])} does not run any more: {what} has passed"
        hint = f"it was {when:%a %-d %b %Y %H:%M} ({config.settings.zone})"
        yield _warning(config, [entry], text, hint)


def _soon_expired(config: Config, now: Instant) -> Iterator[Problem]:
    """Warn of messages that expire before a worker that is busy can take them."""
    for entry in config.entries:
        expires = entry.message.expires_of(now)
        if entry.expires_next or expires is None or expires - now >= SECOND:
            continue
        left = expires - now
        if left > 0:
            text = f"{_listed([entry])}: its messages expire after {left} ms"
            hint = "expires is in seconds; workers do not run what has expired"
        else:
            text = f"{_listed([entry])}: its messages have expired when they are sent"
            hint = "no worker runs them; expires is seconds, a moment, or 'next'"
        yield _warning(config, [entry], text, hint)


def _other_addresses(config: Config) -> Iterator[Problem]:
    addresses = config.settings.write_urls
    if config.entries and len(addresses) > 1:
        text = f"the scheduler uses only the first of {len(addresses)} broker addresses"
        hint = (
            "workers and clients go on to the next when one cannot be reached; what is"
            " scheduled waits at the first"
        )
        yield Problem(text, hint, warning=True)


def _log_formats(config: Config) -> Iterator[Problem]:
    """Try the formats of log lines on a line as a task's."""
    for words in ("worker", "worker_task"):
        name = f"{words}_log_format"
        line = getattr(config.settings, name)
        date = getattr(config.settings, f"{words}_log_datefmt")
        record = logging.makeLogRecord({"task_id": "an-id", "task_name": "a task"})
        form: logging.Formatter | None = None
        try:
            form = logging.Formatter(line, date)
            form.format(record)
        except (LookupError, TypeError, ValueError) as error:
            text = f"{name}: {line!r} is no format of log lines: {error}"
            place = config.source.locate(name)
            # What is none at all keeps beatd from starting.
            yield Problem(text, _FIELDS, place, warning=form is not None)


_FIELDS = (
    "fields are written as %(message)s or %(task_name)s; lines have the plain form"
    " while one is missing that no filter of yours provides"
)


def _warning(
    config: Config, entries: Sequence[Entry], message: str, hint: str
) -> Problem:
    """Return a warning at the line of the first of the entries."""
    place = line_of(config, entries[0].name)
    return Problem(message, hint, place, warning=True)


def _listed(entries: Sequence[Entry]) -> str:
    if len(entries) == 1:
        return f"entry {entries[0].name!r}"
    names = [repr(entry.name) for entry in entries[:_NAMED]]
    if len(entries) > _NAMED:
        names.append(f"{len(entries) - _NAMED} more")
    text = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{counted(len(entries), 'entry')}, {text},"
