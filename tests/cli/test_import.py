"""What `beatd import` shows before anything is done."""

import pytest

from beatd.cli.output import Screen
from beatd.cli.plan import Plan, show
from beatd.config.loading import examine_source
from beatd.config.source import Source
from beatd.migrate.found import Found, FoundEntry, LastRun
from beatd.timetable.ledger import LedgerCopy
from tests.fakes import NOON


def test_what_is_only_shown_is_not_said_to_be_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries = {name: {"task": "t", "schedule": 60} for name in ("ran", "added", "new")}
    config = examine_source(Source("conf", {"beat_schedule": entries})).config
    assert config is not None
    found = [FoundEntry("ran", LastRun(NOON, 3)), FoundEntry("added", LastRun(NOON))]

    show(Plan(config, Found("theirs", found), LedgerCopy({}, 0), NOON), Screen())

    heading, *rows = capsys.readouterr().out.splitlines()[:4]
    begin = heading.index("LAST RUN IS")
    assert {row.split()[0]: row[begin:].strip() for row in rows} == {
        "ran": "to take over",
        "added": "none yet: counts from when it was added",
        "new": "not known: begins with its next slot",
    }
