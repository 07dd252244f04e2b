"""A page about the events of the log: `docs/logs.md`, made from the code.

`python -m beatd.cli.log_page` prints it. Each event is where the code logs it: its
level, its words and its fields. Only what the code works out stands here.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from beatd.config.settings import AlertKind
from beatd.log_fields import FIELDS, Kind
from beatd.timetable.policy import Reason
from beatd.worker.inbox import Stop

PACKAGE = Path(__file__).parent.parent

LEVELS = ("debug", "info", "warning", "error", "critical", "exception")

WORKED_OUT: dict[str, Sequence[str]] = {
    "f'alert.{event.kind}'": tuple(f"alert.{kind}" for kind in AlertKind),
    "f'emit.{outcome.value}'": ("emit.queued", "emit.known"),
    "f'drop.{drop.reason}'": tuple(
        f"drop.{reason}" for reason in Reason if reason is not Reason.PAUSED
    ),
    "f'stop.{stop.value}'": tuple(f"stop.{stop.value}" for stop in Stop),
    "f'{name.decode()}.unreadable'": ("lead.unreadable", "term.unreadable"),
    "self._event": ("scheduler.away", "workers.away"),
}
"""The events that an expression in the code stands for."""

OF_OUTAGES = {"f'{self.event}.lost'": "lost", "f'{self.event}.back'": "back"}
"""The same of what each `Outage` in the code logs: how those end."""

PASSED_ON = {
    ("event_log", "event"),
    ("brokers.oddities", "event"),
    ("worker.reporting", "event"),
}
"""Where the name is an argument: it stands where the function is called."""

_LEVEL_OF = {"exception": "ERROR", "tell": "ERROR", "log": "as set"}
_KINDS = {Kind.PLAIN: "", Kind.INSTANT: "a time", Kind.SPAN: "a length"}


class Event(NamedTuple):
    """One place in the code that logs an event."""

    name: str
    level: str
    words: str
    fields: tuple[str, ...]


def page() -> str:
    """Return `docs/logs.md`."""
    events = sorted(set(events_of(PACKAGE)))
    fields = "".join(
        f"| `{name}` | {_KINDS[field.kind]} | {field.meaning} |\n"
        for name, field in FIELDS.items()
    )
    return _INTRODUCTION.format(fields=fields) + "".join(map(_line, events))


def events_of(package: Path) -> Iterator[Event]:
    """Yield each event that the code of a package logs."""
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts): [
            *ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        ]
        for path in sorted(package.rglob("*.py"))
    }
    outages = sorted({name for some in modules.values() for name in _outages_in(some)})
    worked_out = WORKED_OUT | {
        written: [f"{name}.{end}" for name in outages]
        for written, end in OF_OUTAGES.items()
    }
    for module, nodes in modules.items():
        functions = [one for one in nodes if isinstance(one, ast.FunctionDef)]
        for node in nodes:
            if isinstance(node, ast.Call) and (place := _place_of(node)) is not None:
                # The innermost one is the last: they are in the order of their depth.
                around = [one for one in functions if _is_in(node, one)]
                known = _texts_in(around[-1], node.lineno) if around else {}
                yield from _events_at(node, place, module, known, worked_out)


def _outages_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the events that outages are called by: their second argument."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="Outage"), args=[_, ast.Constant(name), *_]):
                yield str(name)
            case ast.Call(func=ast.Name(id="Outage")):
                raise LookupError(f"line {node.lineno}: which event is it?")


def _is_in(node: ast.Call, function: ast.FunctionDef) -> bool:
    return function.lineno <= node.lineno <= (function.end_lineno or 0)


def _place_of(call: ast.Call) -> int | None:
    """Return which argument is the event's name; None for what logs none."""
    if not isinstance(call.func, ast.Attribute):
        return None
    told_by = ast.unparse(call.func.value)
    is_teller = "tell" in told_by or told_by.startswith("EventLog(")
    match call.func.attr:
        case level if level in LEVELS and is_teller:
            return 0
        case "log" if is_teller or told_by == "log":
            return 1
        case "tell" if "oddities" in told_by:
            return 0
        case "_log" if len(call.args) > 3:  # of the worker's reporter
            return 1
    return None


def _events_at(
    call: ast.Call,
    place: int,
    module: str,
    known: Mapping[str, str],
    worked_out: Mapping[str, Sequence[str]],
) -> Iterator[Event]:
    assert isinstance(call.func, ast.Attribute)
    name = call.args[place]
    written = ast.unparse(name)
    if (module, written) in PASSED_ON:
        return
    if isinstance(name, ast.Constant):
        names: Sequence[str] = (str(name.value),)
    elif written in worked_out:
        names = worked_out[written]
    else:
        raise LookupError(f"{module}: line {call.lineno}: which event is {written}?")
    method = call.func.attr
    if method == "_log":
        level = ast.unparse(call.args[0]).removeprefix("logging.")
        words, fields = _words_of(call.args[3], known), ["task", "id"]
    else:
        level = _LEVEL_OF.get(method, method.upper())
        words = _words_of(call.args[place + 1], known)
        fields = [*_fields_of(call)]
    for one in names:
        yield Event(one, level, words, tuple(fields))


def _fields_of(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg is None:  # **about, in `scheduler.progress`
            yield from ("entry", "slot", "last")
        elif keyword.arg != "exc_info":
            yield keyword.arg


def _texts_in(function: ast.AST, until: int) -> Mapping[str, str]:
    """Return the texts that variables of a function stand for before a line."""
    found: dict[str, str] = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or node.lineno >= until:
            continue
        match node.targets[0], node.value:
            case ast.Name(id=name), value:
                pairs = [(name, value)]
            case ast.Tuple(elts=names), ast.Tuple(elts=values):
                both = zip(names, values, strict=True)
                pairs = [(one.id, v) for one, v in both if isinstance(one, ast.Name)]
            case _:
                continue
        found |= {name: text for name, value in pairs if (text := _words_of(value))}
    return found


def _words_of(node: ast.expr, known: Mapping[str, str] | None = None) -> str:
    """Return a text of the code, with `…` for what is filled in; empty for none."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%(\.\d+)?[sdrfgi]", "…", text).replace("%%", "%")
        case ast.JoinedStr(values=parts):
            return "".join(_words_of(part) or "…" for part in parts)
        case ast.Name(id=name):
            return (known or {}).get(name, "")
    return ""


def _line(event: Event) -> str:
    fields = ", ".join(f"`{name}`" for name in event.fields)
    words = event.words.replace("……", "…").replace("\n", " ")
    words = words.replace("|", "&#124;").replace("<", "&lt;")
    return f"| `{event.name}` | {event.level} | {words or '…'} | {fields} |\n"


_INTRODUCTION = """\
# The log

<!-- Made from the code by `python -m beatd.cli.log_page`: edit that. -->

The log of `beatd` and of `beatd worker` goes to standard error, or to the file of
`--logfile`; how much of it, `-l` says (`WARNING` by default). `--log-format` says what
it is made of:

| `--log-format` | what it is |
|---|---|
| `text` | Lines for people, as `worker_log_format` and its like have them. |
| `json` | One object a line, whatever is in it; formats have no effect. |
| `journal` | Records with fields, for the journal of systemd. |

Without the option it is `journal` where systemd connected standard error to the journal
(`$JOURNAL_STREAM`) and no format is set, else `text`.

All times are in the zone of the settings (`timezone`), with their offset; before the
config is read they are in the machine's.

## JSON

```json
{{"time": "2026-11-30T14:05:12.004+01:00", "level": "INFO",
 "logger": "beatd.scheduler.emission_log", "event": "emit.queued",
 "message": "tick queued: shop.tick[019a...] in celery for ..., 4 ms late",
 "entry": "tick", "task": "shop.tick", "id": "019a...", "queue": "celery",
 "slot": "2026-11-30T14:05:12.000+01:00", "slot_ts": 1796043912.0, "late": 0.004,
 "pid": 812}}
```

(It is one line.) `event` is null for what is not beatd's own: what a task or a library
logs. Such a line has the fields of the logger's `extra`, and of a task's line `task`
and `id` say of which run it is; a field that is called as one of the log's gets an
underscore at its end. `exception` is the traceback, if there is one. A length of time
is in seconds. A time is text of RFC 3339; its name with `_ts` has seconds since the
epoch. All characters are ASCII.

Why a scheduler or a worker ends, or does not start, is such a line, too (`failed`). Not
the log's are the stacks that SIGUSR1 asks for, and what tasks print where
`worker_redirect_stdouts` is off.

## Journal

Fields are written as `BEATD_ENTRY`, the task id as `BEATD_TASK_ID`, lengths of time in
milliseconds as `BEATD_LATE_MS`; the event is `BEATD_EVENT`. So `journalctl
BEATD_ENTRY=nightly-backup` is the history of one entry, and `journalctl
BEATD_EVENT=lead.taken` says when which scheduler came to lead. `MESSAGE_ID` is the UUID
of version 5 of `beatd:<event>` in the name-space of URLs. If the journal takes no
records, as in some sandboxes, the lines come through standard error.

## Fields

| field | | what it is |
|---|---|---|
{fields}
## Events

An event's name does not change between versions without a word in the changelog; its
words may. `…` stands for what is filled in.

| event | level | words | fields |
|---|---|---|---|
"""


if __name__ == "__main__":
    print(page(), end="")
