"""Two processes that compare their entries by a few bytes for each."""

from dataclasses import replace
from typing import Any

import pytest

from beatd.instant import MINUTE, SECOND
from beatd.message import MessageFormat, template
from beatd.routing import Route
from beatd.schedules.interval import Every
from beatd.timetable import imprint
from beatd.timetable.entry import Entry
from beatd.timetable.imprint import Imprint, compare, imprint_of, in_words, trace_of
from tests.fakes import entry


def of(*entries: Entry) -> Imprint:
    return imprint_of(map(trace_of, entries))


def named(*entries: Entry) -> dict[str, Entry]:
    return {one.name: one for one in entries}


def sending(name: str, origin: str = "", **sent: Any) -> Entry:
    form = MessageFormat(origin=origin)
    message = template(
        form, Route(sent.pop("queue", "celery")), "t", **sent, entry=name
    )
    return Entry(name, Every(MINUTE), message)


A, B = entry("a", Every(MINUTE)), entry("b", Every(MINUTE))


def test_the_order_of_entries_and_their_words_do_not_count() -> None:
    assert of(A, B) == of(B, replace(A, description="other words"))


def test_what_another_process_sends_is_the_same() -> None:
    options = {"priority": 3, "expires": 60, "link": []}
    one = sending("a", "gen1@h", args=[1], options=options)

    assert of(one) == of(sending("a", "gen2@other", args=[1], options=options))


@pytest.mark.parametrize(
    "other",
    [
        entry("a", Every(SECOND)),
        entry("a", Every(MINUTE), offset=1),
        entry("a", Every(MINUTE), enabled=False),
        replace(A, expires_next=True),
        sending("a"),
    ],
)
def test_whatever_is_other_in_an_entry_is_told(other: Entry) -> None:
    assert compare(named(A, B), of(other, B)).changed == ["a"]


@pytest.mark.parametrize(
    "sent", [{"args": [1]}, {"kwargs": {"a": 1}}, {"queue": "q"}, {"options": {"x": 1}}]
)
def test_whatever_is_sent_counts(sent: dict[str, Any]) -> None:
    assert of(sending("a", **sent)) != of(sending("a"))


def test_who_has_what_is_told_by_name() -> None:
    found = compare(named(A, B), of(A, entry("c", Every(MINUTE))))

    assert (found.missing, found.changed, found.others) == (["b"], [], 1)
    assert compare(named(A), of()).missing == ["a"]


def test_few_of_many_names_are_shown() -> None:
    many = named(*(entry(f"e{n:03}", Every(MINUTE)) for n in range(200)))

    words = in_words(compare(many, of(A)))

    assert words.startswith("nobody emits 'e000', 'e001', ")
    assert " and 195 more" in words


def test_too_many_entries_are_told_to_differ_but_not_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(imprint, "MOST", 1)

    found = compare(named(A), of(A, B))

    assert not found.is_told
    assert found.missing == []
