"""Foreign text in errors and logs."""

from beatd.text import quoted


def test_foreign_text_is_shown_escaped_and_short() -> None:
    assert quoted("a\n\x1b\u2603") == r"'a\n\x1b\u2603'"
    assert len(quoted("\U0001f680" * 1_000_000)) < 200
    assert len(quoted(["x" * 1000])) < 200
