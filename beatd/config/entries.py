"""From the dicts of `beat_schedule` to entries, with all that is wrong in each."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from inspect import signature
from typing import Any
from zoneinfo import ZoneInfo

from beatd import schedules
from beatd.bounds import FIRST_DATE, LAST_DATE, LAST_YEAR
from beatd.config import settings
from beatd.config.builtin_tasks import ARGUMENTS, shown_arguments
from beatd.config.calls import Calls, EntryCall
from beatd.config.celery_schedules import spec_of_theirs
from beatd.config.entry_line import BadEntry, Line
from beatd.config.faults import raised_by_reading
from beatd.config.settings import (
    Settings,
    Unfit,
    did_you_mean,
    safe,
)
from beatd.config.source import Raised, Source
from beatd.errors import MessageError, ScheduleError
from beatd.instant import SECOND, Instant, Span, instant_of, span_of
from beatd.message import EntryMessage
from beatd.message.options import option_problems
from beatd.schedules import ScheduleSpec
from beatd.schedules.base import Schedule
from beatd.schedules.cron import Cron
from beatd.text import escaped, is_encodable, one_line, quoted
from beatd.timetable.entry import Entry, Overlap, Policy

_SIMPLE_KEYS = {
    "misfire_grace_time": settings.SECONDS,
    "coalesce": settings.FLAG,
    "max_catchup": settings.POSITIVE,
    "overlap": settings.OVERLAP,
    "overlap_timeout": settings.SECONDS,
    "max_runs": settings.POSITIVE,
    "enabled": settings.FLAG,
    "run_on_start": settings.FLAG,
    "timezone": settings.ZONE,
    "relative": settings.FLAG,
    "jitter": settings.SECONDS,
    "slot_argument": settings.TEXT,
    "description": settings.TEXT,
    "alerts": settings.ALERT_RULE,
    "pause_after_failures": settings.POSITIVE,
}
"""Keys whose values are read by themselves; None is as good as leaving one out.

In two None says something: `misfire_grace_time` and `overlap_timeout` have no limit.
"""

_OR_UNLIMITED = {
    "misfire_grace_time": "misfire_grace",
    "overlap_timeout": "overlap_timeout",
}
"""Those two, with the fields of a policy that they become."""

_DICTS = (dict, Mapping)
"""What an entry may be; most are the first, which is told sooner."""

_CELERY_KEYS = frozenset({"task", "schedule", "args", "kwargs", "options"})
KEYS = _CELERY_KEYS | _SIMPLE_KEYS.keys() | {"start_time", "end_time"}

_OPTIONS = frozenset(
    {
        *("queue", "exchange", "exchange_type", "routing_key", "priority"),
        *("expires", "countdown", "eta", "headers", "serializer", "compression"),
        *("shadow", "time_limit", "soft_time_limit", "ignore_result", "link"),
        *("link_error", "retry", "retry_policy", "task_id", "reply_to"),
        *("delivery_mode", "group_id", "group_index", "root_id", "parent_id", "chain"),
        *("chord", "argsrepr", "kwargsrepr", "stamped_headers", "stamps", "origin"),
        *("retries", "add_to_parent", "body_encoding"),
    }
)
"""What Celery's `apply_async` knows; it makes others properties of the message."""


class EntryReader:
    """Reads the entries of one config; entries share equal schedules and policies.

    Their defaults come from the settings. `source` is where they are written.
    """

    def __init__(self, chosen: Settings, calls: Calls, source: Source) -> None:
        self._settings = chosen
        self._calls = calls
        self._source = source
        self.alerts: dict[str, settings.Changes | None] = {}
        """By entry, its own rule of alerts; None if it has none told."""
        self.pauses: dict[str, int] = {}
        """By entry, after how many failures it is to be paused, if it says so."""
        self._shortest = span_of(chosen.beat_min_interval)
        self._policies: dict[Policy, Policy] = {}
        self._schedules: dict[Hashable, Schedule] = {}
        self._policy = Policy(
            misfire_grace=_span(chosen.beat_misfire_grace_time),
            coalesce=chosen.beat_coalesce,
            max_catchup=chosen.beat_max_catchup,
            overlap=Overlap(chosen.beat_overlap),
            overlap_timeout=_span(chosen.beat_overlap_timeout),
            run_on_start=chosen.beat_run_on_start,
        )
        self._cron_policy = self._policy
        if chosen.beat_misfire_grace_time is None:
            deadline = _span(chosen.beat_cron_starting_deadline)
            self._cron_policy = replace(self._policy, misfire_grace=deadline)

    def read(self, name: object, written: object) -> Entry | BadEntry:
        """Return the entry, or all that is wrong with it."""
        line = Line(_shown_name(name), {}, self._source, self._settings.zone)
        entry = None
        if not isinstance(name, str) or not name:
            line.wrong("expected a text, not empty, as its name")
        elif not is_encodable(name):
            line.wrong("expected Unicode text as its name, without lone surrogates")
        elif not isinstance(written, _DICTS):
            line.wrong(f"expected a dict with task and schedule, got {_kind(written)}")
        else:
            line.written = written
            try:
                entry = self._entry(line)
            except Exception as error:  # foreign code: the values are the user's
                line.wrong(raised_by_reading(error))
        if entry is None or line.problems:
            return BadEntry(line.name, line.problems)
        return entry

    def _entry(self, line: Line) -> Entry | None:
        if Raised in map(type, line.written.values()):
            _say_raised(line)
        if not line.written.keys() <= _CELERY_KEYS:
            _read_simple_keys(line)
        schedule = self._schedule(line)
        message = self._message(line)
        policy = self._policy_of(line, schedule)
        if schedule is None or message is None:
            return None
        if "alerts" in line.values:
            self.alerts[line.name] = line.values["alerts"]
        if "pause_after_failures" in line.values:
            self.pauses[line.name] = line.values["pause_after_failures"]
        jitter = line.values.get("jitter", self._settings.beat_jitter)
        return Entry(
            line.name,
            schedule,
            message,
            policy,
            _share(span_of(jitter), self._settings.beat_namespace, line.name),
            (line.written.get("options") or {}).get("expires") == "next",
            line.values.get("description", ""),
        )

    def _schedule(self, line: Line) -> Schedule | None:
        written = line.written.get("schedule")
        if written is None:
            line.wrong("it has no 'schedule'")
            return None
        try:
            spec = spec_of(written, relative=line.values.get("relative", False))
            schedule = self._in_zone(spec, line)
        except ScheduleError as error:
            problem, _, hint = error.problem.partition("; ")
            part = "" if error.field == "schedule" else f"{error.field}: "
            unknown = _UNEXPECTED.search(problem)
            word = unknown[2] if unknown else error.field.replace("-", "_")
            path, of_key = ("schedule", word), unknown is not None
            line.wrong(f"schedule: {part}{problem}", hint, path, of_key=of_key)
            return None
        interval = getattr(schedule, "every", self._shortest)
        if interval < self._shortest:
            line.wrong(
                f"schedule: expected an interval of {self._shortest / SECOND:g} s or"
                f" more (beat_min_interval), got {interval / SECOND:g} s",
                path=("schedule",),
            )
        return schedule

    def _in_zone(self, spec: ScheduleSpec, line: Line) -> Schedule:
        # `H` and `R` in an expression stand for numbers drawn from the entry's name.
        drawn = isinstance(spec, schedules.cron) and _DRAWN.search(spec.expression)
        key = (spec, line.zone.key, line.name if drawn else None)
        schedule = self._schedules.get(key)
        if schedule is None:
            schedule = spec.in_zone(line.zone, hash_id=line.name)
            self._schedules[key] = schedule
        return schedule

    def _policy_of(self, line: Line, schedule: Schedule | None) -> Policy:
        policy = self._cron_policy if isinstance(schedule, Cron) else self._policy
        if line.written.keys() <= _CELERY_KEYS:
            return policy
        values = line.values
        same = ("coalesce", "max_catchup", "max_runs", "enabled", "run_on_start")
        changes = {key: values[key] for key in same if key in values}
        for key, field_name in _OR_UNLIMITED.items():
            if key in values:
                changes[field_name] = _span(values[key])
        if "overlap" in values:
            changes["overlap"] = Overlap(values["overlap"])
        start, end = _bound("start_time", line), _bound("end_time", line)
        if start is not None and end is not None and end < start:
            line.wrong("end_time: it lies before start_time", path=("end_time",))
        policy = replace(policy, start=start, end=end, **changes)
        return self._policies.setdefault(policy, policy)

    def _message(self, line: Line) -> EntryMessage | None:
        task = line.written.get("task")
        if not isinstance(task, str) or not task:
            expected = f"task: expected a task's name, got {safe(task)}"
            text = "it has no 'task'" if task is None else expected
            line.wrong(text, path=("task",))
            return None
        if not is_encodable(task):
            text = "task: expected Unicode text, without lone surrogates"
            line.wrong(text, path=("task",))
            return None
        default = self._settings.beat_slot_argument
        shown: Mapping[str, str] = {}
        try:
            if task in ARGUMENTS:
                default = None  # it has the slot by other means
                shown = shown_arguments(task, line.written)
            return self._calls.message(
                EntryCall(
                    line.name,
                    task,
                    line.written.get("args"),
                    line.written.get("kwargs"),
                    {**shown, **self._options(line)},
                    line.zone,
                    line.values.get("slot_argument", default),
                    line.written.get("schedule"),
                )
            )
        except MessageError as error:
            path = re.findall(r"\w+", str(error).partition(":")[0])
            line.wrong(str(error), path=tuple(path))
            return None

    def _options(self, line: Line) -> dict[str, Any]:
        """Return the options as a call would have them."""
        written = line.written.get("options") or {}
        if written == {}:
            return {}
        if not isinstance(written, Mapping):
            raise MessageError(f"options: expected a dict, got {_kind(written)}")
        options = dict(written)
        if not options.keys() <= _OPTIONS:
            _doubt_options(line, options)
        if isinstance(options.get("expires"), timedelta):
            options["expires"] = options["expires"].total_seconds()
        elif options.get("expires") == "next":
            del options["expires"]
        # Checked here to name every wrong option; the template names only the first.
        for name, problem in [*option_problems(options)]:
            line.wrong(problem, path=("options", str(name)))
            del options[name]
        return options


_DRAWN = re.compile("[HR]", re.IGNORECASE)  # also of Thu and Mar, which does no harm


def _say_raised(line: Line) -> None:
    """Note the values that could not be made, and leave them out."""
    raised = {
        key: value
        for key, value in line.written.items()
        if isinstance(value, Raised) and key != "schedule"
    }
    for key, value in raised.items():
        line.wrong(f"{key}: {value}", path=(key,))
    line.written = {k: v for k, v in line.written.items() if k not in raised}


def _read_simple_keys(line: Line) -> None:
    """Read the keys that stand for themselves; the zone is one of them."""
    for key in sorted(map(str, line.written.keys() - KEYS)):
        hint = did_you_mean(key, KEYS)
        if key in _OPTIONS:
            hint = f"it goes into 'options': {{{key!r}: ...}}"
        line.unknown("key", hint, (key,))
    line.values |= {key: None for key in _OR_UNLIMITED if key in line.written}
    for key, kind in _SIMPLE_KEYS.items():
        value = line.written.get(key)
        if value is None:
            continue
        try:
            line.values[key] = kind.take(value)
        except Unfit as error:
            line.wrong(f"{key}: {error.reason}", error.hint, (key,))
    if "timezone" in line.values:
        line.zone = ZoneInfo(line.values["timezone"])


def _doubt_options(line: Line, options: Mapping[str, Any]) -> None:
    """Refuse options that were likely meant as other ones, or as keys of the entry."""
    for key in sorted(map(str, options.keys() - _OPTIONS)):
        hint = did_you_mean(key, _OPTIONS)
        if key in KEYS:
            hint = "it goes beside 'options', not inside"
        if hint:
            line.unknown("option", hint, ("options", key))


def spec_of(value: object, *, relative: bool) -> ScheduleSpec:
    """Return a schedule; Celery's own objects become those of beatd."""
    if isinstance(value, Raised):
        raise _schedule_error(value)
    theirs = spec_of_theirs(value, relative=relative)
    return theirs or schedules.read(value, relative=relative)


def _schedule_error(raised: Raised) -> ScheduleError:
    error = raised.error
    if isinstance(error, ScheduleError):
        problem, semicolon, hint = error.problem.partition("; ")
        text = f"{problem}{raised.where}{semicolon}{hint}"
        return ScheduleError(error.field, text)
    return ScheduleError("schedule", f"{raised}{_near_argument(str(error))}")


def _near_argument(said: str) -> str:
    """Return a hint if beatd's own schedule was given an argument that it lacks."""
    found = _UNEXPECTED.match(said)
    kind = getattr(schedules, found[1], None) if found else None
    if not found or kind is None:
        return ""
    near = did_you_mean(found[2], signature(kind).parameters)
    return f"; {near}" if near else ""


_UNEXPECTED = re.compile(
    r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
)


def _bound(key: str, line: Line) -> Instant | None:
    """Return a moment, which must have a zone."""
    moment = line.written.get(key)
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        line.wrong(f"{key}: expected a datetime, got {quoted(moment)}", path=(key,))
        return None
    if moment.tzinfo is None:
        text = f"{key}: which zone is {moment.isoformat(' ')} in?"
        hint = f"add it, as in datetime(..., tzinfo=ZoneInfo({str(line.zone)!r}))"
        line.wrong(text, hint, (key,))
        return None
    # Beyond these no slot lies: `datetime.min` and `datetime.max` say "without bound".
    instant = min(max(instant_of(moment), FIRST_DATE), LAST_DATE)
    if key == "start_time" and instant == LAST_DATE:
        text = f"{key}: expected a date before the year {LAST_YEAR + 1}"
        line.wrong(text, path=(key,))
        return None
    return instant


def _share(jitter: Span, namespace: str, name: str) -> Span:
    """Return the entry's own part of `jitter`, the same in every process."""
    if not jitter:
        return 0
    hashed = sha256(f"{namespace}\0{name}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") * jitter >> 64


def _span(seconds: float | None) -> Span | None:
    return None if seconds is None else span_of(seconds)


def _shown_name(name: object) -> str:
    """Return an entry's name as it is shown, whatever stands in its place."""
    try:
        text = str(name)  # plain, also where it is a member of an enumeration of texts
    except Exception:  # foreign code, or a number of too many digits to print
        return f"a name of type {type(name).__name__}"
    if isinstance(name, str):
        return text if is_encodable(text) else escaped(text)
    return one_line(text)


def _kind(value: object) -> str:
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiou" else "a"
    return "None" if value is None else f"{article} {kind}"
