"""Config modules as text: entries of others, written as a user would write them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from beatd import schedules
from beatd.migrate.found import FoundEntry
from beatd.text import escaped

_WIDTH = 88
_STEP = "    "


def module_text(
    title: str, settings: Mapping[str, object], parts: Sequence[FoundEntry | str]
) -> str:
    """Return a config module with these settings and entries.

    What cannot be said of an entry stands there as a comment, and so does each text
    among the entries. `title` is the module's docstring.
    """
    body = [f"{name} = {literal(value)}" for name, value in settings.items()]
    if body:
        body.append("")
    body += ["beat_schedule = {", *_lines(parts), "}"]
    text = "\n".join(body)
    return f'"""{_quotable(title)}\n"""\n\n{_imports(text)}{text}\n'


def comment(text: str, indent: str = "") -> Iterator[str]:
    """Yield the lines of a comment: foreign text ends no line of it."""
    for line in text.split("\n"):
        yield f"{indent}# {escaped(line)}".rstrip()


def _quotable(text: str) -> str:
    lines = [escaped(line) for line in text.split("\n")]
    return "\n".join(lines).replace("\\", "\\\\").replace('"', '\\"')


def _imports(text: str) -> str:
    """Return the imports of those names that a module calls."""
    lines = []
    if "datetime.fromisoformat(" in text:
        lines += ["from datetime import datetime", ""]
    # A name within a text is imported for nothing, which harms nobody.
    called = set(re.findall(r"\b(\w+)\(", text)) & set(schedules.__all__)
    if called:
        lines += [f"from beatd.schedules import {', '.join(sorted(called))}", ""]
    return "\n".join([*lines, ""]) if lines else ""


def _lines(parts: Iterable[FoundEntry | str]) -> Iterator[str]:
    for entry in parts:
        if isinstance(entry, str):
            yield from comment(entry, _STEP)
            continue
        if entry.written is None:
            why = "; ".join(entry.notes) or "it cannot be read"
            yield from comment(f"{entry.name!r} is left out: {why}", _STEP)
            continue
        for note in entry.notes:
            yield from comment(note, _STEP)
        written = literal(entry.written, _STEP, split=True)
        yield f"{_STEP}{_text(entry.name)}: {written},"


def literal(value: object, indent: str = "", *, split: bool = False) -> str:
    """Return what is written for a value; `split` has a dict's items in lines.

    Raises ValueError for a value that has no such text.
    """
    if isinstance(value, datetime):
        return f"datetime.fromisoformat({value.isoformat()!r})"
    if isinstance(value, _SPECS):
        return repr(value)
    if isinstance(value, Mapping):
        items = [
            f"{literal(k)}: {literal(v, indent + _STEP)}" for k, v in value.items()
        ]
        return _within("{", items, "}", indent, split=split and bool(items))
    if isinstance(value, list | tuple):
        items = [literal(one, indent + _STEP) for one in value]
        ends = "()" if isinstance(value, tuple) else "[]"
        if ends == "()" and len(items) == 1:
            return f"({items[0]},)"
        return _within(ends[0], items, ends[1], indent, split=False)
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    raise ValueError(f"a value of type {type(value).__name__} cannot be written")


def _text(value: str) -> str:
    """Return a text in double quotes, if it has none itself."""
    written = repr(value)
    return written if '"' in value else f'"{written[1:-1]}"'


_SPECS = (
    schedules.crontab,
    schedules.cron,
    schedules.every,
    schedules.once,
    schedules.rrule,
    schedules.solar,
)


def _within(start: str, items: list[str], end: str, indent: str, *, split: bool) -> str:
    line = f"{start}{', '.join(items)}{end}"
    if not split and len(indent) + len(line) < _WIDTH - 20 and "\n" not in line:
        return line
    inner = "".join(f"{indent}{_STEP}{item},\n" for item in items)
    return f"{start}\n{inner}{indent}{end}"
