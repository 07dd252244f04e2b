"""The port of a result backend that counts chords.

A chord has a header, calls that run all at once, and a body that runs with the list of
their values. The worker that runs the last call of the header sends the body; it may be
one of Celery's. A backend without this port has no chords.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import msgspec

from beatd.message import Chord

NO_CHORDS = "chords need result_backend at redis://..., or rediss://..."


class Part(msgspec.Struct, frozen=True):
    """The end of one call that counts for a chord."""

    group: str
    """The header's id."""
    task_id: str
    index: int | None
    """The call's place in the header."""
    data: bytes
    """The call's state and value, by `Encoding.part`."""


class Joined(msgspec.Struct, frozen=True):
    """A chord whose whole header has ended; the caller is to send its body."""

    part: Part
    """The part that came last; its caller alone sends the body."""
    header: Sequence[bytes]
    """The data of all parts, in order."""
    shape: bytes | None
    """The form of the values, encoded as a result; None: one list."""


@dataclass(frozen=True, slots=True)
class ChordTimes:
    """How long parts of chords are kept, from the last one on; in whole seconds."""

    parts: int = 86_400
    """0: for ever."""
    shape: int = 86_400
    """0: for ever."""
    claim: int = 6
    """After that another caller may claim the body."""

    @property
    def done(self) -> int:
        """How long after a chord's end copies of its parts are still recognised."""
        return max(2 * self.claim, 300)


@dataclass(frozen=True, slots=True)
class Ended:
    """How one call of a header ended."""

    task_id: str
    state: str
    value: Any
    """The exception, if the call failed."""


@runtime_checkable
class Chords(Protocol):
    """Counts the ends of headers.

    Every method raises ResultUnavailable when no answer came; calling again is safe.
    It raises ResultRefused, once all others are done, if some are refused.
    """

    def begin_chords(self, chords: Sequence[Chord]) -> None:
        """Expect the ends of these headers; called before their calls are sent."""
        ...

    def join_chords(self, parts: Sequence[Part]) -> list[Joined]:
        """Count these ends, each once; return the chords that they complete.

        A chord is returned to one caller: the one with the last part. If that part
        comes again before `end_chords`, the chord is returned again. If some are
        refused, ask again for each of the others.
        """
        ...

    def end_chords(self, joined: Sequence[Joined]) -> None:
        """Forget these chords: their bodies are sent. Ignore later copies of parts."""
        ...


def values_of(header: Sequence[Ended], shape: Any) -> list[Any]:
    """Return the values for a body; KeyError if a call in the shape has no end."""
    if shape is None:
        return [one.value for one in header]
    known = {one.task_id: one.value for one in header}
    values: list[Any] = _in_place(shape, known)
    return values


def _in_place(shape: Any, known: dict[str, Any]) -> Any:
    (task_id, _), members = shape
    if members is None:
        return known[task_id]
    return [_in_place(member, known) for member in members]
