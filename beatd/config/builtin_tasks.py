"""What the built-in tasks take: read when an entry is read, and again when one runs.

beatd.run    a command
beatd.http   a request to an address
"""

from collections.abc import Mapping, Sequence
from typing import Any

from beatd.config.calls import check_arguments
from beatd.config.settings import (
    BUILTIN_TASKS,
    FLAG,
    SOME_SECONDS,
    TEXT,
    Kind,
    Unfit,
    did_you_mean,
    is_web_address,
    mask_url,
    safe,
)
from beatd.errors import MessageError
from beatd.text import one_line

RUN, HTTP = BUILTIN_TASKS

REQUEST_TIMEOUT = 30.0
"""Seconds for a request that names none."""


def _text(value: object) -> str:
    text: str = TEXT.take(value)
    if "\0" in text:
        raise Unfit("expected a text without NUL characters")
    return text


def _command(value: object) -> str | tuple[str, ...]:
    """Return a command: a text for a shell, or the words of one for none."""
    if isinstance(value, str):
        if not value.strip():
            raise Unfit("expected a command, got an empty text")
        return _text(value)
    if not isinstance(value, list | tuple):
        raise Unfit
    if not value or value[0] == "":
        raise Unfit("expected a list that begins with a program")
    return tuple(map(_text, value))


def _texts_by_name(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise Unfit
    return {_text(name): _text(one) for name, one in value.items()}


def _environment(value: object) -> dict[str, str]:
    texts = _texts_by_name(value)
    if any(not name or "=" in name for name in texts):
        raise Unfit("expected names of variables, not empty and without =")
    return texts


def _headers(value: object) -> dict[str, str]:
    texts = _texts_by_name(value)
    for name, text in texts.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise Unfit("expected names of headers: letters, digits and -")
        if not text.isprintable() or not text.isascii():
            raise Unfit(f"{name}: expected ASCII text without line breaks")
    return texts


def _statuses(least: int, most: int) -> Kind:
    def read(value: object) -> tuple[int, ...]:
        listed = value if isinstance(value, list | tuple) else (value,)
        if not listed or any(
            type(one) is not int or not least <= one <= most for one in listed
        ):
            raise Unfit
        return tuple(listed)

    return Kind(f"a number from {least} to {most}, or a list of these", read)


def address(value: object) -> str:
    """Return an address that a request may go to. Raises Unfit."""
    url = _text(value)
    if not is_web_address(url):
        shown = mask_url(url)
        raise Unfit(f"expected an http:// or https:// address, got {shown!r}")
    return url


def _method(value: object) -> str:
    method = _text(value)
    if not (method.isascii() and method.isalpha()):
        raise Unfit
    return method.upper()


ARGUMENTS: Mapping[str, Mapping[str, Kind]] = {
    RUN: {
        "command": Kind("a list of texts, or a text with shell=True", _command),
        "shell": FLAG,
        "timeout": SOME_SECONDS,
        "cwd": Kind("the path of a folder", _text),
        "env": Kind("a dict of texts by name", _environment),
        "input": TEXT,
        "ok_statuses": _statuses(0, 255),
    },
    HTTP: {
        "url": Kind("an http:// or https:// address", address),
        "method": Kind("the name of a method", _method),
        "headers": Kind("a dict of texts by name", _headers),
        "body": TEXT,
        "json": Kind("a value that JSON has", lambda value: value),
        "timeout": SOME_SECONDS,
        "expected_status": _statuses(100, 599),
    },
}
"""The arguments of each, in their order; the first one has to be there."""


def builtin_arguments(
    task: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the arguments of a call of a built-in task, read, without those of None.

    Raises MessageError, which says where the first wrong one is.
    """
    kinds = ARGUMENTS[task]
    first = next(iter(kinds))
    given = dict(kwargs or {})
    if args:
        if len(args) > 1 or first in given:
            raise MessageError(f"args: {task} takes only its {first} here")
        given[first] = args[0]
    taken: dict[str, Any] = {}
    for name, value in given.items():
        kind = _kind(task, name)
        if value is not None:
            where = "args" if args and name == first else f"kwargs.{name}"
            taken[name] = _taken(where, kind, value)
    if first not in taken:
        raise MessageError(f"kwargs: {task} needs its {first!r}")
    _check_together(taken)
    return taken


def shown_arguments(task: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the options by which monitors show an entry's arguments, without secrets.

    Raises MessageError for arguments that the built-in task does not take.
    """
    if entry.get("slot_argument") is not None:
        raise MessageError(f"slot_argument: {task} does not take it")
    args, kwargs = entry.get("args"), entry.get("kwargs")
    check_arguments(args, kwargs)
    builtin_arguments(task, args, kwargs)
    return {
        "argsrepr": one_line(safe(tuple(args or ()))),
        "kwargsrepr": one_line(safe(dict(kwargs or {}))),
    }


def _kind(task: str, name: str) -> Kind:
    kinds = ARGUMENTS[task]
    if name not in kinds:
        near = did_you_mean(name, kinds)
        way = near or f"it takes {', '.join(kinds)}"
        raise MessageError(f"kwargs.{name}: {task} has no such argument; {way}")
    return kinds[name]


def _taken(where: str, kind: Kind, value: object) -> Any:
    try:
        return kind.take(value)
    except Unfit as error:
        raise MessageError(f"{where}: {error.reason}") from None


def _check_together(taken: Mapping[str, Any]) -> None:
    """Raise MessageError for arguments that do not go together."""
    if taken.get("shell") and not isinstance(taken["command"], str):
        raise MessageError(
            "kwargs.command: with shell=True expected one text, got a list"
        )
    if not taken.get("shell") and isinstance(taken.get("command"), str):
        raise MessageError(
            "kwargs.command: this is a text, and no shell is asked for; write"
            " ['program', 'argument', ...], or add 'shell': True"
        )
    if "body" in taken and "json" in taken:
        raise MessageError("kwargs.json: there is a body already; one of both is sent")
