"""The arguments of a command: of the types, and within the bounds, that it declares.

A command is a function, and its annotations are what is declared. Nothing that a client
has sent reaches the function before it was converted to them.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

import msgspec

from beatd.bounds import LONGEST
from beatd.control.pidbox import Name
from beatd.text import quoted

LARGEST_POOL = 10_000
"""The largest number of runs at the same time that any command may speak of."""

Names: TypeAlias = str | list[str]
Modules: TypeAlias = Annotated[list[str], msgspec.Meta(description="names of modules")]
Ids: TypeAlias = str | list[str | int | None]
"""Ids of runs; what is no text among them is the id of none."""

Revoked: TypeAlias = Ids | dict[str, Any]
"""Ids, or a table of them, which is what workers of Celery 5.4 send."""

Limit: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_POOL)]
Stamp: TypeAlias = str | int | float
Stamps: TypeAlias = dict[str, Stamp | list[Stamp]] | list[str]
ExchangeType: TypeAlias = Literal["direct", "topic", "fanout"]

__all__ = [
    "ExchangeType",
    "Ids",
    "Limit",
    "Modules",
    "Name",
    "Names",
    "Number",
    "Revoked",
    "Stamps",
    "read",
]


def read(function: Callable[..., object], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was sent as the types that the function declares.

    A number may have been sent as text: command lines do. Arguments that the function
    does not know stay as they are. Raises ValueError.
    """
    declared = _declared(function)
    found = dict(sent)
    for name, value in sent.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
            if name in declared:
                found[name] = msgspec.convert(value, declared[name], strict=False)
        except UnicodeEncodeError:
            raise ValueError(f"{quoted(name)}: half a character: no UTF-8") from None
        except msgspec.ValidationError as error:
            words = _words_of(declared[name])
            expected = f"expected {words}" if words else error
            raise ValueError(f"{name}: {expected}; got {quoted(value)}") from None
    return found


def _words_of(kind: object) -> str:
    """Return how a declared type is called; empty if it has no words of its own."""
    for one in (kind, *get_args(kind)):
        for part in getattr(one, "__metadata__", ()):
            if isinstance(part, msgspec.Meta) and part.description:
                return part.description
    return ""


@cache
def _declared(function: Callable[..., object]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {
        one.name: hints[one.name]
        for one in parameters
        if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
