"""The bounded text of arguments that logs and monitors show: `argsrepr`."""

from collections.abc import Iterable
from decimal import Decimal
from numbers import Number
from typing import Any

_DEEPEST = 100

_PLAIN = frozenset({int, float, bool, type(None)})
"""Types whose `repr` is what is shown."""


def bounded_repr(value: Any, size: int, levels: int) -> str:
    """Return the text that Celery shows: about `size` characters, `levels` deep.

    Text that is cut ends in `...`, a container that is cut in `, ...` and its bracket.
    """
    is_plain = type(value) in _PLAIN or (
        type(value) is tuple and levels >= 0 and _PLAIN.issuperset(map(type, value))
    )
    if is_plain:
        try:
            text = repr(value)
        except ValueError:  # a number of too many digits, which stands for itself
            text = ""
        if text and len(text) < size:
            return text
    writer = _Writer(size, min(levels or _DEEPEST, _DEEPEST))
    writer.write(value, 0)
    return "".join(writer.parts)


class _Writer:
    """Writes values until the room is used up; closes all brackets that it opened."""

    def __init__(self, room: int, levels: int) -> None:
        self.parts: list[str] = []
        self.room = room
        self.levels = levels
        self.full = False

    def put(self, text: str) -> bool:
        """Write a piece if any room is left, even if the piece takes more than that."""
        if self.full:
            return False
        if self.room <= 0:
            self.parts.append(", ...")
            self.full = True
            return False
        self.parts.append(text)
        self.room -= len(text)
        return True

    def write(self, value: Any, level: int) -> None:
        if type(value) in _PLAIN:
            self.put(_cut(_plain(value), self.room))
        elif isinstance(value, str):
            self.put("'" + _cut(value, self.room).replace("'", "\\'") + "'")
        elif isinstance(value, bytes):
            self.put(_binary(value, self.room))
        elif isinstance(value, set | frozenset) and not value:
            self.put(_cut(f"{type(value).__name__}()", self.room))
        elif isinstance(value, dict | list | tuple | set | frozenset):
            self.container(value, level)
        else:
            self.put(_cut(_plain(value), self.room))

    def container(self, value: Any, level: int) -> None:
        opening, closing = _brackets(value)
        if level >= self.levels:
            self.put(f"{opening}...{closing}")
            return
        if not self.put(opening):
            return
        is_dict = isinstance(value, dict)
        lead = ""
        for item in value.items() if is_dict else value:
            if self.full or (lead and not self.put(lead)):
                break
            if is_dict:
                self.put(bounded_repr(item[0], self.room, self.levels))
                self.put(": ")
                self.write(item[1], level + 1)
            else:
                self.write(item, level + 1)
            lead = ", "
        self.parts.append(closing)
        self.room -= len(closing)


def _brackets(value: Iterable[Any]) -> tuple[str, str]:
    if isinstance(value, tuple):
        return "(", ",)" if len(value) == 1 else ")"
    if isinstance(value, list):
        return "[", "]"
    if isinstance(value, dict) or type(value) is set:
        return "{", "}"
    return f"{type(value).__name__}({{", "})"


def _plain(value: Any) -> str:
    try:
        if type(value) in _PLAIN:
            return repr(value)
        if isinstance(value, Number) and not isinstance(value, Decimal):
            return str(value)
        return repr(value)
    except Exception as error:  # the user's `__repr__`, or too many digits
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _cut(text: str, room: int) -> str:
    if len(text) < room or room <= 0:
        return text
    return text[:room].rsplit(" ", 1)[0] + "..."


def _binary(value: bytes, room: int) -> str:
    shown = value[:room] if room > 0 else value
    try:
        text = shown.decode()
    except UnicodeDecodeError:
        text = shown.hex()
    return f"b'{text}{'...' if len(shown) < len(value) else ''}'"
