"""What a row says of its setting: `works`, `unused` or beatd's `own`."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Note:
    """What the table says of one setting beside its name, kind and default."""

    old: str
    """Celery's old spelling; the same as the name-spaced one if there was none."""
    meaning: str
    differs: str = ""
    """How beatd's reading is not Celery's."""
    unused: str = ""
    """Why beatd takes it and does nothing with it."""
    own: bool = False
    """Whether Celery does not know it."""


def works(old: str, default: object, meaning: str, differs: str = "") -> Any:
    """A setting that does what it does in Celery, but for what `differs`."""
    return _row(default, Note(old, meaning, differs=differs))


def unused(old: str, default: object, meaning: str, why: str) -> Any:
    """A setting that is accepted and changes nothing."""
    return _row(default, Note(old, meaning, unused=why))


def own(old: str, default: object, meaning: str) -> Any:
    """A setting of beatd's own."""
    return _row(default, Note(old, meaning, own=True))


def _row(default: object, note: Note) -> Any:
    metadata = {"note": note}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
