"""Foreign text in errors and logs."""

import pytest

from beatd.text import counted, quoted


def test_foreign_text_is_shown_escaped_and_short() -> None:
    assert quoted("a\n\x1b\u2603") == r"'a\n\x1b\u2603'"
    assert len(quoted("\U0001f680" * 1_000_000)) < 200
    assert len(quoted(["x" * 1000])) < 200


@pytest.mark.parametrize(
    ("noun", "one", "several"),
    [
        ("slot", "1 slot", "2 slots"),
        ("entry", "1 entry", "2 entries"),
        ("process", "1 process", "2 processes"),
    ],
)
def test_a_number_stands_before_one_or_several(
    noun: str, one: str, several: str
) -> None:
    assert (counted(1, noun), counted(2, noun)) == (one, several)
    assert counted(0, noun) == several.replace("2", "0")
