"""`beatd list`."""

import json
from pathlib import Path

import pytest

from beatd.cli import main
from beatd.cli.output import Screen
from beatd.cli.schedule_view import ScheduleView
from beatd.config.loading import Wanted, load
from beatd.scheduler.file_view import View
from beatd.timetable.imprint import imprint_of, trace_of
from tests.cli.conftest import Run, ran
from tests.fakes import NOON

WIDE = """\
ENTRY           SCHEDULE          NEXT (Europe/Berlin)     LAST                STATE
tick            every 2 s         14:05:14         in 2 s  14:05:12       0 s  sent
sync-crm        every 5 min       14:10:00      in 4m 48s  14:05:00      12 s  sent
report-sales    hourly at :30     14:30:00     in 24m 48s  13:30:00   35m 12s  sent
nightly-backup  daily 02:30       Tue 02:30    in 12h 24m  02:30:00   11h 35m  sent
invoice-run     monthly 1st 06:00 Tue  1 Dec    in 7d 15h  Sun  1 Nov     22d  sent
old-import      weekly Sun 04:00  paused by the config     Sun 15 Nov      8d  paus

6 entries, 1 paused.  Next: tick in 2 s.
source: state file celerybeat-schedule; no scheduler runs with it
broker: {folder}/broker.db, which is not there yet
"""

NARROW = """\
ENTRY           NEXT (Europe/Berlin)     LAST                STATE
tick            14:05:14         in 2 s  14:05:12       0 s  sent
sync-crm        14:10:00      in 4m 48s  14:05:00      12 s  sent
report-sales    14:30:00     in 24m 48s  13:30:00   35m 12s  sent
nightly-backup  Tue 02:30    in 12h 24m  02:30:00   11h 35m  sent
invoice-run     Tue  1 Dec    in 7d 15h  Sun  1 Nov     22d  sent
old-import      paused by the config     Sun 15 Nov      8d  paus

6 entries, 1 paused.  Next: tick in 2 s.
source: state file celerybeat-schedule; no scheduler runs with it
broker: {folder}/broker.db, which is not there yet
"""


@pytest.mark.usefixtures("running_shop")
@pytest.mark.parametrize("utf8", [True, False])
@pytest.mark.parametrize(("width", "expected"), [(80, NARROW), (100, WIDE)])
def test_the_list_fits_the_terminal(
    run: Run, folder: Path, width: int, utf8: bool, expected: str
) -> None:
    output = run("list", screen=Screen(width=width, utf8=utf8)).stdout

    assert output == expected.format(folder=folder)


@pytest.mark.usefixtures("running_shop")
def test_in_a_pipe_the_list_has_its_full_width(run: Run, folder: Path) -> None:
    assert run("list").stdout == WIDE.format(folder=folder)
    assert run("ls").stdout == WIDE.format(folder=folder)


@pytest.mark.usefixtures("shop")
def test_without_a_schedule_file_the_list_says_so(run: Run, folder: Path) -> None:
    lines = run("list").stdout.splitlines()

    assert lines[1] == "tick            every 2 s         14:05:14         in 2 s"
    assert lines[-2] == (
        "source: configuration only, no schedule file celerybeat-schedule yet"
    )
    assert lines[-1] == f"broker: {folder}/broker.db, which is not there yet"
    assert not (folder / "celerybeat-schedule").exists()


@pytest.mark.usefixtures("running_shop")
def test_the_list_can_be_in_utc(run: Run) -> None:
    lines = run("list", "--utc", "nightly-backup").stdout.splitlines()

    assert "NEXT (UTC)" in lines[0]
    assert "Tue 01:30    in 12h 24m  01:30:00   11h 35m" in lines[1]


@pytest.mark.usefixtures("running_shop")
def test_wide_adds_task_queue_and_arguments_and_hides_what_is_secret(run: Run) -> None:
    for screen in (None, Screen(width=80)):
        output = run("list", "--wide", "report-*", screen=screen).stdout

        assert "STATE  TASK               QUEUE    ARGS" in output
        assert "  sent   shop.tasks.report  reports  7, kind='sales'," in output
        assert "api_token=***" in output
        assert "hush" not in output


def test_wide_hides_what_is_secret_however_deep(run: Run, shop: Path) -> None:
    shop.write_text(
        """beat_schedule = {"a": {
            "task": "t", "schedule": 5.0,
            "args": ({"login": {"passwd": "hu sh"}, "at": "https://a:hu sh@h"}, 7),
            "kwargs": {"o": [{"access_key": "hush", "n": 1}], "pwd": "hu sh"},
        }}"""
    )
    output = run("list", "--wide").stdout

    assert "{'login': {'passwd': ***}, 'at': 'https://a:***@h'}, 7" in output
    assert "o=[{'access_key': ***, 'n': 1}], pwd=***" in output


@pytest.mark.usefixtures("running_shop")
def test_a_glob_chooses_entries_and_the_summary_counts_them(run: Run) -> None:
    lines = run("list", "*-backup", "tick").stdout.splitlines()

    assert [line.split()[0] for line in lines[1:3]] == ["tick", "nightly-backup"]
    assert lines[4] == "2 of 6 entries.  Next: tick in 2 s."


@pytest.mark.usefixtures("running_shop")
def test_the_limit_says_what_it_hides(run: Run) -> None:
    lines = run("list", "--limit", "2").stdout.splitlines()

    assert len(lines) == 7
    assert lines[4].endswith("Showing 2: --limit 6 shows all.")


@pytest.mark.usefixtures("running_shop")
@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("name", ["invoice-run", "nightly-backup", "old-import"]),
        ("last", ["tick", "sync-crm", "report-sales"]),
    ],
)
def test_the_list_can_be_sorted(run: Run, key: str, names: list[str]) -> None:
    lines = run("list", "--sort", key).stdout.splitlines()

    assert [line.split()[0] for line in lines[1:4]] == names


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "nightly-bakup",
            "error: no entry named 'nightly-bakup'\n"
            "  did you mean 'nightly-backup'?   all entries: beatd list\n",
        ),
        (
            "nightly",
            "error: no entry named 'nightly'\n"
            "  did you mean 'nightly-backup'?   all entries: beatd list\n",
        ),
        ("x-*", "error: no entry matches 'x-*'\n  all entries: beatd list\n"),
    ],
)
def test_a_name_that_no_entry_has_ends_with_status_3(
    capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert main(["list", "tick", word]) == 3
    assert capsys.readouterr() == ("", message)


def test_a_bad_entry_is_listed_with_the_reason(run: Run, folder: Path) -> None:
    (folder / "celeryconfig.py").write_text(
        "beat_schedule = {\n"
        '    "well": {"task": "a", "schedule": 60},\n'
        '    "month-end": {"task": "a", "schedule": "0 6 31 2 *"},\n'
        "}\n"
    )

    piped = run("list").stdout.splitlines()
    narrow = run("list", screen=Screen(width=80, utf8=True)).stdout.splitlines()

    assert piped[2].split() == [
        *("month-end", "schedule:", "day-of-month:", "can", "never", "occur:"),
        *("February", "has", "28", "or", "29", "days", "bad"),
    ]
    assert narrow[2] == (
        "month-end                   schedule: day-of-month: can never occur: F…  bad"
    )
    assert piped[4] == (
        "2 entries, 1 bad.  Next: well in 48 s.  What is wrong: beatd check."
    )


@pytest.mark.usefixtures("shop")
def test_an_entry_that_the_broker_refuses_is_listed_with_the_reason(run: Run) -> None:
    reason = "redis://here/0 refuses: another program uses our key: rename the queue"
    last = "2026-11-23T14:05:00+01:00"
    ran({"sync-crm": reason}, sync_crm=last, tick=last)

    lines = run("list", screen=Screen(width=80, utf8=True)).stdout.splitlines()
    shown = json.loads(run("list", "--json", "sync-crm", "tick").stdout)["entries"]

    [row] = [line for line in lines if line.startswith("sync-crm  ")]
    assert row.split()[-1] == "refused"
    assert max(map(len, lines[:7])) <= 80
    assert f"sync-crm is refused: {reason}" in "\n".join(lines).replace("\n  ", " ")
    assert any(line.startswith("6 entries, 1 refused, 1 paused.") for line in lines)
    states = {one["name"]: (one["state"], one.get("reason")) for one in shown}
    assert states == {"sync-crm": ("refused", reason), "tick": ("sent", None)}


@pytest.mark.usefixtures("shop")
def test_an_entry_that_waits_for_its_run_is_listed_with_the_reason(run: Run) -> None:
    reason = "12 slots in a row were dropped, as its run 1 has not ended"
    last = "2026-11-23T14:05:00+01:00"
    ran({}, {"sync-crm": reason}, sync_crm=last, tick=last)

    lines = run("list", screen=Screen(width=80, utf8=True)).stdout.splitlines()
    shown = json.loads(run("list", "--json", "sync-crm").stdout)["entries"]

    [row] = [line for line in lines if line.startswith("sync-crm  ")]
    assert row.split()[-1] == "held"
    assert f"sync-crm is held: {reason}" in lines
    assert any(line.startswith("6 entries, 1 held, 1 paused.") for line in lines)
    assert [(one["state"], one["reason"]) for one in shown] == [("held", reason)]


@pytest.mark.usefixtures("shop")
def test_slots_of_which_it_is_uncertain_whether_they_ran_are_counted(run: Run) -> None:
    ran({}, {}, {"tick": 11, "sync-crm": 1}, tick="2026-11-23T14:05:00+01:00")

    text = run("list").stdout
    shown = json.loads(run("list", "--json").stdout)

    assert "6 entries, 1 paused, 12 slots uncertain." in text
    assert shown["uncertain"] == 12
    assert {one["name"]: one["dropped"] for one in shown["entries"]}["tick"] == {
        "uncertain": 11
    }


@pytest.mark.usefixtures("shop")
def test_entries_that_the_scheduler_does_not_go_by_are_said_to_be_others(
    run: Run,
) -> None:
    own = imprint_of(map(trace_of, load(Wanted()).entries)).digest
    last = "2026-11-23T14:05:00+01:00"

    ran({}, {}, {}, own, tick=last)
    assert "other entries" not in run("list").stdout
    ran({}, {}, {}, own[::-1], tick=last)

    assert "goes by other entries than this config: reload it" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)["source"]["differs"]


def test_an_overdue_slot_is_due_now_unless_its_policy_drops_it(
    run: Run, folder: Path
) -> None:
    (folder / "celeryconfig.py").write_text(
        'timezone = "Europe/Berlin"\n'
        "beat_schedule = {\n"
        '    "late": {"task": "a", "schedule": "0 * * * *"},\n'
        '    "too-late": {"task": "a", "schedule": "0 * * * *",\n'
        '                 "misfire_grace_time": 60},\n'
        '    "spent": {"task": "a", "schedule": "0 * * * *", "max_runs": 3},\n'
        "}\n"
    )
    hours_ago = "2026-11-23T11:00:00+01:00"
    ran(late=hours_ago, too_late=hours_ago, spent=hours_ago)

    assert [line[16:48].rstrip() for line in run("list").stdout.splitlines()[1:4]] == [
        "hourly   due now",
        "hourly   15:00:00     in 54m 48s",
        "hourly   no more runs",
    ]
    assert "3 entries, 1 over." in run("list").stdout
    [spent] = json.loads(run("list", "--json", "spent").stdout)["entries"]
    assert (spent["state"], spent["next"]) == ("over", None)


def test_what_ascii_has_no_sign_for_keeps_its_column(run: Run, folder: Path) -> None:
    (folder / "celeryconfig.py").write_text(
        'beat_schedule = {"caf\xe9-\u2615": {"task": "a", "schedule": "@daily"},'
        ' "a-plain-name": {"task": "a", "schedule": "@daily"}}\n'
    )

    lines = run("list", screen=Screen(utf8=False)).stdout.splitlines()

    rows = [line for line in lines if "00:00" in line]
    assert "caf\\xe9-\\u2615  daily" in rows[1]
    assert rows[0].index("00:00") == rows[1].index("00:00")


@pytest.mark.parametrize(("utf8", "mark"), [(True, "…"), (False, "...")])
def test_a_long_name_loses_its_middle_and_the_times_nothing(
    run: Run, folder: Path, utf8: bool, mark: str
) -> None:
    name = "nightly-" + "very-" * 20 + "backup"
    (folder / "celeryconfig.py").write_text(
        f'beat_schedule = {{"{name}": {{"task": "a", "schedule": "30 2 * * *"}}}}'
    )

    line = run("list", screen=Screen(width=80, utf8=utf8)).stdout.splitlines()[1]

    assert line.startswith("nightly-very-")
    assert mark in line
    assert "-backup  " in line
    assert "Tue 02:30    in 13h 24m" in line
    assert len(line) <= 80


def test_a_long_schedule_loses_its_end_before_the_column_goes(
    run: Run, folder: Path
) -> None:
    (folder / "celeryconfig.py").write_text(
        "from beatd import crontab\n"
        'beat_schedule = {"a-name-of-some-length": {"task": "a", "schedule":'
        ' crontab(minute="0", hour="6", day_of_month="1", month_of_year="*/3")}}'
    )

    head, line, *_ = run("list", screen=Screen(width=110)).stdout.splitlines()

    assert head.split()[1] == "SCHEDULE"
    assert "crontab(minute='0', h... 2027-01-01" in line
    assert len(line) <= 110


@pytest.mark.usefixtures("running_shop")
def test_colours_add_to_words_and_can_be_had_in_a_pipe(run: Run) -> None:
    plain = run("list").stdout
    forced = run("list", "--color", "always").stdout

    assert "\x1b" not in plain
    assert "\x1b[90mpaus\x1b[0m" in forced
    assert run("list", "--color", "always", "--no-color").stdout == plain


@pytest.mark.usefixtures("running_shop")
def test_json_is_one_document_with_offsets_and_epochs(run: Run) -> None:
    document = json.loads(run("list", "--json", "--limit", "4").stdout)

    assert document["schema"] == "beatd.list/1"
    assert document["generated"] == "2026-11-23T14:05:12+01:00"
    assert document["generated_ts"] == 1795439112
    assert document["source"]["kind"] == "state file"
    assert (document["total"], document["matched"]) == (6, 6)
    assert len(document["entries"]) == 4
    assert document["entries"][3] == {
        "name": "nightly-backup",
        "state": "sent",
        "task": "backups.run",
        "queue": "celery",
        "exchange": "",
        "routing_key": "celery",
        "schedule": "daily 02:30",
        "zone": "Europe/Berlin",
        "enabled": True,
        "description": "all of it",
        "next": "2026-11-24T02:30:00+01:00",
        "next_ts": 1795483800,
        "due_now": False,
        "last_run_at": "2026-11-23T02:30:00+01:00",
        "last_run_at_ts": 1795397400,
        "total_run_count": 3,
        "dropped": {},
        "recent": [],
    }


def test_a_schedule_of_another_zone_says_which(run: Run, folder: Path) -> None:
    (folder / "celeryconfig.py").write_text(
        'timezone = "Europe/Berlin"\n'
        'beat_schedule = {"close": {"task": "a", "schedule": "0 16 * * *",\n'
        '                           "timezone": "America/New_York"}}\n'
    )

    line = run("list").stdout.splitlines()[1]

    assert "daily 16:00 America/New_York 22:00:00      in 7h 54m" in line


def test_without_entries_the_list_shows_how_to_write_one(
    run: Run, folder: Path
) -> None:
    (folder / "celeryconfig.py").write_text("")

    assert "no entries in celeryconfig" in run("list").stdout


@pytest.mark.usefixtures("shop")
def test_a_schedule_file_that_is_not_ours_is_named_and_left_alone(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "notes.txt").write_text("remember the milk")

    assert main(["list", "-s", "notes.txt"]) == 78
    assert "notes.txt" in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "remember the milk"


def test_a_name_with_a_line_break_stays_on_its_line(run: Run, folder: Path) -> None:
    (folder / "celeryconfig.py").write_text(
        'beat_schedule = {"two\\nlines": {"task": "a", "schedule": 60}}'
    )

    assert run("list").stdout.splitlines()[1].startswith("two\\nlines ")


def test_wide_shows_what_entries_are_for(run: Run, folder: Path) -> None:
    (folder / "celeryconfig.py").write_text(
        "beat_schedule = {\n"
        '    "report": {"task": "a", "schedule": 60, "description": "for\\nAnn"},\n'
        '    "tick": {"task": "a", "schedule": 60},\n'
        "}\n"
    )
    head, report, tick = run("list", "--wide").stdout.splitlines()[:3]

    assert head.endswith("ARGS  DESCRIPTION")
    assert report.endswith("for\\nAnn")
    assert tick.rstrip().endswith("celery")


def test_an_entry_that_was_removed_and_comes_back_has_no_last_run(
    folder: Path,
) -> None:
    config = folder / "celeryconfig.py"
    config.write_text('beat_schedule = {"a": {"task": "a", "schedule": 60}}')
    known = load(Wanted())
    [entry] = known.entries
    mark = entry.mark_from(None, NOON)._replace(runs=3, last=NOON)

    there = ScheduleView(known, Path("x"), View({"a": mark}))
    back = ScheduleView(known, Path("x"), View({"a": mark.removed()}))

    assert there.mark(entry) == mark
    assert back.mark(entry) is None
