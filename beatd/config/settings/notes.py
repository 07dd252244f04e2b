"""What a row says of its setting: `works`, `unused` or beatd's `own`; its option."""

from dataclasses import dataclass, field
from typing import Any

from beatd.config.switches import Switch


@dataclass(frozen=True, slots=True)
class Note:
    """What the table says of one setting beside its name, kind and default."""

    meaning: str
    old: str = ""
    """Celery's old spelling, where it is not the usual one."""
    differs: str = ""
    """How beatd's reading is not Celery's."""
    unused: str = ""
    """Why beatd takes it and does nothing with it."""
    own: bool = False
    """Whether Celery does not know it."""
    switch: Switch | None = None


def works(
    default: object,
    meaning: str,
    *,
    old: str = "",
    differs: str = "",
    switch: Switch | None = None,
) -> Any:
    """A setting that does what it does in Celery, but for what `differs`."""
    return _row(default, Note(meaning, old, differs=differs, switch=switch))


def unused(
    default: object,
    meaning: str,
    why: str,
    *,
    old: str = "",
    switch: Switch | None = None,
) -> Any:
    """A setting that is accepted and changes nothing."""
    return _row(default, Note(meaning, old, unused=why, switch=switch))


def own(default: object, meaning: str, *, switch: Switch | None = None) -> Any:
    """A setting of beatd's own."""
    return _row(default, Note(meaning, own=True, switch=switch))


def _row(default: object, note: Note) -> Any:
    metadata = {"note": note}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
