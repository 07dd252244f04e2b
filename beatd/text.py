"""Foreign text, made safe to show: nothing in it moves a cursor or begins a line."""


def shown(text: object, limit: int = 80) -> str:
    """Return foreign text for an error or a log line: quoted, escaped and short."""
    quoted = ascii(text if not isinstance(text, str) else text[:limit])
    return quoted if len(quoted) <= 2 * limit else quoted[: 2 * limit] + "..."
