"""Foreign text, made safe to show: nothing in it moves a cursor or begins a line."""

import re
import unicodedata
from collections.abc import Sequence

LONGEST_LINE = 1000
"""Characters of a foreign text that a line of the log shows at most."""


def escaped(text: str) -> str:
    """Return a text as one line: no line breaks, no control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or _is_space(c) else _code(c) for c in text)


def indented_lines(text: str, indent: str = "  ") -> str:
    """Return foreign text of several lines: those after the first are indented.

    None of them can be taken for the beginning of another text of its kind. Line breaks
    are line feeds alone; tabs stay, other control characters are escaped.
    """
    if text.isprintable():
        return text
    lines = text.rstrip("\n").split("\n")
    return f"\n{indent}".join(
        "\t".join(map(escaped, line.split("\t"))) for line in lines
    )


def width_of(text: str) -> int:
    """Return how many columns of a terminal a line of text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0  # it is drawn upon the one before, or not at all
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def one_line(text: str) -> str:
    """Return foreign text for a line of the log: escaped, and not all of a long one."""
    return escaped(text[:LONGEST_LINE])


def _is_space(character: str) -> bool:
    """Return whether it is a blank: to Python only the one of ASCII is printable."""
    return unicodedata.category(character) == "Zs"


def _code(character: str) -> str:
    return ascii(character)[1:-1]


def quoted(text: object, limit: int = 80) -> str:
    """Return foreign text for an error or a log line: quoted, escaped and short."""
    try:
        shown = ascii(text if not isinstance(text, str) else text[:limit])
    except Exception:  # foreign code, or a number of too many digits to print
        shown = f"a value of type {type(text).__name__}"
    return shown if len(shown) <= 2 * limit else shown[: 2 * limit] + "..."


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts: `1 entry`, `2 entries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names, at most so many, and how many more there are."""
    shown, more = ", ".join(names[:most]), len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown


def is_encodable(text: str) -> bool:
    """Return whether a text is Unicode: no lone surrogate is in it.

    No broker, no database and no JSON takes a text with one.
    """
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def encodable(text: str) -> str:
    """Return a text with its lone surrogates escaped, as `repr` has them."""
    return text.encode(errors="backslashreplace").decode()


def without_addresses(text: str) -> str:
    """Return what objects show of themselves, as it is in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)
