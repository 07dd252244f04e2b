"""Whether a node's name is one of those that a client's pattern means.

Patterns come from strangers, and are looked at in the thread that receives commands: no
pattern may hold it up. A `glob` cannot: Python's translation of it never goes back. For
`pcre` Python's own matching could take years, so that here all places where a match can
have got to are followed at once, as the bits of a number, within a budget of steps.

What is understood of pcre: text, `.`, classes, `\\d` and its like, `^ $ \\b`, groups,
`|` and all repetitions, greedy or not; `(?i)` at the beginning. Refused are references
back, looking ahead or behind, and possessive repetitions.
"""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

LONGEST_PATTERN = 1000
MOST_STEPS = 20_000
"""Steps of one match: some hundredths of a second."""

DEEPEST = 50
"""Groups within groups: as many as the stack surely has room for."""

Places: TypeAlias = int
"""A set of places in a name: bit n stands for the place before character n."""

Part: TypeAlias = Callable[[Places], Places]
"""From the places where a part of a pattern may begin to those where it may end."""


def matches(name: str, pattern: str, matcher: str) -> bool:
    """Return whether the name is one that the pattern means; see `re.match` for pcre.

    Raises ValueError for a pattern that is refused, in words for people.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"longer than {LONGEST_PATTERN} characters")
    if matcher == "glob":
        return re.match(fnmatch.translate(pattern), name) is not None
    if matcher != "pcre":
        raise ValueError("expected the matcher glob or pcre")
    return _Reader(name, pattern).whole()(1) != 0


_ATOM = re.compile(
    r"""\[\^?\]?(?:\\.|(?!--|&&|~~|\|\|)[^\]\\\[])*\]"""  # a class
    r"""|\\[dDsSwWbBAZ]"""
    r"""|\\[^\w\s]"""  # a character that would mean something else
    r"""|[^\\\[\](){}|*+?]""",
    re.DOTALL,
)
_REPETITION = re.compile(r"(?:([*+?])|\{(\d{1,4})(?:(,)(\d{0,4}))?\})(\??)")
_EDGES = frozenset(["^", "$", r"\b", r"\B", r"\A", r"\Z"])


@dataclass
class _Reader:
    """Reads a pattern from left to right, and makes of it what follows the places."""

    name: str
    pattern: str
    at: int = 0
    flags: int = 0
    steps: int = 0
    depth: int = 0

    def whole(self) -> Part:
        if self._skip("(?i)"):
            self.flags = re.IGNORECASE
        part = self._either()
        if self.at < len(self.pattern):
            raise self._refused()
        return part

    def _either(self) -> Part:
        branches = [self._sequence()]
        while self._skip("|"):
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]

        def follow(places: Places) -> Places:
            ends = 0
            for branch in branches:
                ends |= branch(places)
            return ends

        return follow

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self._repeated(self._one()))

        def follow(places: Places) -> Places:
            self._step()  # also where nothing stands: `()`, or between two `|`
            for part in parts:
                if not places:
                    break
                places = part(places)
            return places

        return follow

    def _one(self) -> Part:
        if self._skip("("):
            if self._sees("?") and not self._skip("?:"):
                raise self._refused()
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} groups within groups")
            inner = self._either()
            self.depth -= 1
            if not self._skip(")"):
                raise self._refused()
            return inner
        atom = _ATOM.match(self.pattern, self.at)
        if atom is None:
            raise self._refused()
        self.at = atom.end()
        try:
            one = re.compile(atom[0], self.flags)
        except re.error:
            raise self._refused() from None
        width = 0 if atom[0] in _EDGES else 1
        fits = sum(
            1 << place
            for place in range(len(self.name) + 1 - width)
            if one.match(self.name, place)
        )

        def follow(places: Places) -> Places:
            self._step()
            return (places & fits) << width

        return follow

    def _repeated(self, part: Part) -> Part:
        found = _REPETITION.match(self.pattern, self.at)
        if found is None:
            return part
        self.at = found.end()
        sign, least, comma, most, _ = found.groups()
        if sign:
            low, high = (1 if sign == "+" else 0), (1 if sign == "?" else None)
        else:
            low, high = int(least), int(most) if most else None if comma else int(least)
        if self._sees("*", "+", "?", "{") or (high is not None and high < low):
            raise self._refused()

        def follow(places: Places) -> Places:
            for _ in range(low):
                self._step()
                places = part(places)
            ends, times = places, low
            while places and (high is None or times < high):
                self._step()
                # What has been reached before leads to nothing new.
                places = part(places) & ~ends
                ends |= places
                times += 1
            return ends

        return follow

    def _sees(self, *texts: str) -> bool:
        return self.pattern.startswith(texts, self.at)

    def _skip(self, text: str) -> bool:
        if not self._sees(text):
            return False
        self.at += len(text)
        return True

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise ValueError("too much work for one name")

    def _refused(self) -> ValueError:
        return ValueError(f"not understood at character {self.at + 1}")
