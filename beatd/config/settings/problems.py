"""What is wrong with a config: where, in words for people, without its secrets."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of one line of a config file; columns count from 0."""

    file: str
    line: int
    column: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a config, in words for people."""

    message: str
    hint: str = ""
    """The way out, if there is one: "did you mean 'beat_schedule'?"."""
    place: Place | None = None
    warning: bool = False
    """Whether beatd can go on in spite of it."""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.message}{f'; {self.hint}' if self.hint else ''}"


Locate: TypeAlias = Callable[..., Place | None]
"""Returns the place of a setting (by its spelling), or of a key inside its value."""


def nowhere(*path: str) -> None:
    """Return no place: the `Locate` of settings that come from no file."""


def did_you_mean(word: str, known: Iterable[str], likeness: float = 0.75) -> str:
    """Return a hint with the word most like `word`, or nothing if none is near."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=likeness)
    begun = sorted(name for name in folded if name.startswith(word.casefold()))
    # Half a name is not like the whole, and means it all the same.
    if len(word) >= _SHORTEST_BEGINNING and (len(begun) == 1 or not near):
        near = begun
    return f"did you mean {folded[near[0]]!r}?" if near else ""


_SHORTEST_BEGINNING = 3
"""Characters from which on the beginning of a name is taken for it."""
