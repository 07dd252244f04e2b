"""Foreign text, made safe to show: nothing in it moves a cursor or begins a line."""

LONGEST_LINE = 1000
"""Characters of a foreign text that a line of the log shows at most."""


def escaped(text: str) -> str:
    """Return a text as one line: no line breaks, no control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Return foreign text for a line of the log: escaped, and not all of a long one."""
    return escaped(text[:LONGEST_LINE])


def quoted(text: object, limit: int = 80) -> str:
    """Return foreign text for an error or a log line: quoted, escaped and short."""
    try:
        shown = ascii(text if not isinstance(text, str) else text[:limit])
    except Exception:  # foreign code, or a number of too many digits to print
        shown = f"a value of type {type(text).__name__}"
    return shown if len(shown) <= 2 * limit else shown[: 2 * limit] + "..."


def is_encodable(text: str) -> bool:
    """Return whether a text is Unicode: no lone surrogate is in it.

    No broker, no database and no JSON takes a text with one.
    """
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
