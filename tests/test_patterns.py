"""Which names a pattern of remote control means: the same as Celery's, and soon."""

import fnmatch
import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.control.patterns import matches

ATOMS = [
    *"ab1@.",
    r"\d",
    r"\w",
    r"\W",
    r"\.",
    r"\b",
    "[ab]",
    "[^a-z]",
    "[]@]",
    "^",
    "$",
]
SIGNS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{0,2}?", "{2,}"]

PATTERNS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(SIGNS)).map("({0[0]}){0[1]}".format),
        inner.map("(?:{})".format),
    ),
    max_leaves=12,
)


@given(st.text("ab1@.-", max_size=9), PATTERNS)
def test_a_pcre_pattern_means_the_names_that_re_match_finds(
    name: str, pattern: str
) -> None:
    assert matches(name, pattern, "pcre") is bool(re.match(pattern, name))


@given(st.text("ab1@.-", max_size=9), st.text("ab1@.-*?[]!", max_size=12))
def test_a_glob_pattern_means_the_names_that_fnmatch_finds(
    name: str, pattern: str
) -> None:
    assert matches(name, pattern, "glob") is fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "is_meant"),
    [
        (r"celery@web-\d+$", True),
        (r"celery@(web|mail)-[0-9]{1,3}\.", False),
        ("(?i)CELERY@WEB", True),
        (r".*@web", True),
        (r"web", False),
        (r"^celery@.+-1(0|2)$", True),
    ],
)
def test_patterns_as_people_write_them(pattern: str, is_meant: bool) -> None:
    assert matches("celery@web-12", pattern, "pcre") is is_meant


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a(?=b)", "not understood at character 3"),
        (r"(a)\1", "not understood at character 4"),
        ("(?P<a>a)", "not understood at character 2"),
        ("a*+", "not understood at character 3"),
        ("a{3,1}", "not understood"),
        ("[a", "not understood at character 1"),
        ("[z-a]", "not understood"),
        ("[[a]", "not understood at character 1"),
        ("a)", "not understood at character 2"),
        ("(" * 400 + ")" * 400, "groups within groups"),
        ("(" + "|" * 900 + "){9999}", "too much work"),
        ("(" + "()" * 400 + "){9999}", "too much work"),
        ("a" * 1001, "longer than 1000 characters"),
    ],
)
def test_what_is_refused_is_named(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        matches("celery@web", pattern, "pcre")


@pytest.mark.parametrize(
    ("pattern", "matcher"),
    [
        ("(a+)+$", "pcre"),
        ("(.|.)*" * 150 + "x", "pcre"),
        (".*" * 499 + "x", "pcre"),
        ("((((((a*)*)*)*)*)*)*x", "pcre"),
        ("(((.{9,999}){9,999}){9,999}){9,999}", "pcre"),
        ("*a" * 499 + "x", "glob"),
    ],
)
def test_no_pattern_takes_long(pattern: str, matcher: str) -> None:
    began = process_time()

    assert not matches("celery@" + "a" * 200 + "b", pattern, matcher)
    assert process_time() - began < 1
