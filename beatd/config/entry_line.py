"""One entry as it is written, and all that is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from beatd.config import settings
from beatd.config.settings import Place, Problem, mask
from beatd.config.source import Source


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An entry that cannot be used, and why."""

    name: str
    problems: list[Problem]

    @property
    def why(self) -> str:
        """What is wrong with it, in one line, and without its name."""
        lead = f"entry {self.name!r}: "
        return "; ".join(one.message.removeprefix(lead) for one in self.problems)


@dataclass(slots=True)
class Line:
    """One entry as it is written, what was read of it, and what is wrong with it."""

    name: str
    written: Mapping[str, Any]
    source: Source
    zone: ZoneInfo
    """The zone in which its schedule is read."""
    values: dict[str, Any] = field(default_factory=dict)
    """Of those simple keys that are there and well."""
    problems: list[Problem] = field(default_factory=list)

    def wrong(
        self,
        message: str,
        hint: str = "",
        path: tuple[str, ...] = (),
        *,
        of_key: bool = False,
    ) -> None:
        """Note a problem with the value at `path` inside the entry, or with the key."""
        # A value that stands in the place of another may be a password, or an address.
        text = f"entry {self.name!r}: {mask(message)}"
        place = self._place(path, of_key=of_key or not path)
        self.problems.append(Problem(text, hint, place))

    def unknown(self, what: str, hint: str, path: tuple[str, ...]) -> None:
        """Note that the key at the end of `path` is not known."""
        text = f"entry {self.name!r}: unknown {what} {path[-1]!r}"
        self.problems.append(Problem(text, hint, self._place(path, of_key=True)))

    def _place(self, path: tuple[str, ...], *, of_key: bool = False) -> Place | None:
        locate = self.source.locate if of_key else self.source.locate_value
        for word in settings.table()["beat_schedule"].spellings:
            written = self.source.written.get(word)
            if isinstance(written, Mapping) and self.name in written:
                return locate(word, self.name, *path)
        return None
