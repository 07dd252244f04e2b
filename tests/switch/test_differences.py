"""docs/celery-differences.md names all that Celery's interface has and ours has not."""

import re
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.app.task import Task as CeleryTask
from celery.canvas import Signature as CelerySignature
from celery.result import AsyncResult as CeleryAsyncResult
from celery.result import GroupResult as CeleryGroupResult

from beatd import Beatd
from tests.processes import ROOT

APP = Beatd("shop", set_as_current=False)
TASK = APP.task(name="add")(lambda x, y: x + y)

PAIRS = {
    "The application": (Celery, APP),
    "Tasks": (CeleryTask, TASK),
    "Results": (CeleryAsyncResult, APP.AsyncResult("an-id")),
    "Results of groups": (CeleryGroupResult, APP.GroupResult("an-id", [])),
    "Signatures": (CelerySignature, TASK.s()),
}


def missing(theirs: object, ours: object) -> set[str]:
    return {name for name in dir(theirs) if name[0] != "_"} - {*dir(ours)}


def told(title: str) -> Iterator[str]:
    """Yield the names in the first column of the table under this title."""
    page = (ROOT / "docs" / "celery-differences.md").read_text()
    (section,) = re.findall(rf"^## {title}: .*?(?=^## |\Z)", page, re.M | re.S)
    for row in re.findall(r"^\| ([^|]*) \|", section, re.M):
        yield from re.findall(r"`(\w+)`", row)


@pytest.mark.parametrize("title", PAIRS)
def test_the_page_names_what_is_missing(title: str) -> None:
    assert {*told(title)} == missing(*PAIRS[title])
