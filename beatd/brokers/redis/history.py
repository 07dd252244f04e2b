"""The history in Redis: pages that emissions add, rows by entry, and notes."""

from collections.abc import Collection, Mapping, Sequence

from beatd.brokers.items import MOST_PAGES, Term
from beatd.brokers.redis.requests import RedisRequests
from beatd.errors import TermOver
from beatd.timetable.pages import Page

_LAST = b"\xff"
"""The field for the number of the last page: no entry's name in UTF-8 is this."""


class RedisHistory(RedisRequests):
    """The ports HistoryKeeper and NoteKeeper."""

    def read_history(self) -> tuple[dict[str, bytes], list[Page]]:
        keys = [self._key("pages"), self._key("history")]
        first, pages, flat = self._run("read_history", keys, [MOST_PAGES, "1"])
        rows = dict(zip(flat[::2], flat[1::2], strict=True))
        rows.pop(_LAST, None)
        found = {name.decode(errors="replace"): row for name, row in rows.items()}
        return found, _pages(first, pages)

    def read_pages(self, limit: int) -> list[Page]:
        keys = [self._key("pages"), self._key("history")]
        first, pages, _ = self._run("read_history", keys, [limit, ""])
        return _pages(first, pages)

    def fold_pages(
        self, term: Term, upto: int, rows: Mapping[str, bytes], gone: Collection[str]
    ) -> None:
        keys = [self._key(name) for name in ("lead", "pages", "history")]
        flat = [part for row in rows.items() for part in row]
        asked = [text_of(term), upto, len(rows), *flat, *gone]
        if not self._run("fold_pages", keys, asked):
            raise over(term)

    def read_notes(self, book: str) -> dict[str, bytes]:
        found = self._ask("HGETALL", self._key(f"notes:{book}"))
        return {name.decode(errors="replace"): note for name, note in found.items()}

    def write_notes(
        self,
        book: str,
        notes: Mapping[str, bytes],
        gone: Collection[str] = (),
        term: Term | None = None,
    ) -> None:
        keys = [self._key("lead"), self._key(f"notes:{book}")]
        flat = [part for note in notes.items() for part in note]
        under = "" if term is None else text_of(term)
        asked = [under, len(notes), *flat, *gone]
        if not self._run("write_notes", keys, asked) and term is not None:
            raise over(term)


def _pages(first: int, stored: Sequence[bytes]) -> list[Page]:
    return [Page(number, page) for number, page in enumerate(stored, first)]


def text_of(term: Term) -> str:
    return f"{term.number} {term.nonce} "


def over(term: Term) -> TermOver:
    return TermOver(f"term {term.number} is over: someone else may lead")
