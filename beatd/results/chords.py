"""What a result backend promises to chords: their headers' ends are counted there.

A chord has a header, calls that run all at once, and a body that runs with the list of
their values. Who ends the last call of the header sends the body: any worker, Celery's
too. A backend without this port has no chords.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import msgspec

from beatd.message import Chord


class Part(msgspec.Struct, frozen=True):
    """The end of one call that counts for a chord."""

    group: str
    """The header's id."""
    task_id: str
    index: int | None
    """Its place in the header."""
    data: bytes
    """What `Encoding.part` makes of its state and value."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A chord whose whole header has ended, and whose body is the caller's to send."""

    part: Part
    """Whose caller has the claim."""
    header: Sequence[bytes]
    """The data of all parts, in order."""
    shape: bytes | None
    """Where the values lie, as results are encoded; None: in one list."""


@dataclass(frozen=True, slots=True)
class ChordTimes:
    """How long what is known of a chord is kept, each part anew; in whole seconds."""

    parts: int = 86_400
    """0: for ever."""
    shape: int = 86_400
    """0: for ever."""
    claim: int = 6
    """After that another caller may claim the body."""

    @property
    def done(self) -> int:
        """Give how long copies of parts of a chord that is over are recognised."""
        return max(2 * self.claim, 300)


@dataclass(frozen=True, slots=True)
class Ended:
    """How one call of a header ended."""

    task_id: str
    state: str
    value: Any
    """An exception where it failed."""


@runtime_checkable
class Chords(Protocol):
    """Where the ends of headers are counted.

    Every method raises ResultUnavailable when no answer came; calling again is safe.
    """

    def begin_chords(self, chords: Sequence[Chord]) -> None:
        """Await the ends of these headers; called before any of their calls is sent."""
        ...

    def join_chords(self, parts: Sequence[Part]) -> list[Joined]:
        """Count these ends, each once, and give the chords that are complete by that.

        A chord is given to one caller: to who came with the last part, also when that
        comes once more, until `end_chords`.
        """
        ...

    def end_chords(self, joined: Sequence[Joined]) -> None:
        """Forget these, whose bodies are sent; further copies of parts are ignored."""
        ...


def values_of(header: Sequence[Ended], shape: Any) -> list[Any]:
    """Give what a body gets; KeyError when the shape names a call that did not end."""
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
