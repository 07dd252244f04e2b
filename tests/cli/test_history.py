"""`beatd history` and `beatd audit`, by what the broker's history says."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beatd.brokers.items import Term
from beatd.brokers.sqlite import SQLiteBroker
from beatd.cli.output import Screen
from beatd.cli.past import lateness
from beatd.config.loading import Wanted, load
from beatd.ids import run_id
from beatd.instant import HOUR, MINUTE, SECOND, Instant
from beatd.results import connect
from beatd.results.base import Meta
from beatd.timetable.ledger import Mark
from beatd.timetable.pages import EVERYWHERE, Record, What, batch_page, told_page
from tests.brokers.making import emission, lead
from tests.cli.conftest import NOW, Run, at, ran, unsaid
from tests.fakes import FakeClock

HALF_PAST = at("2026-11-23T13:30:00+01:00")

CONFIG = """\
from beatd import cron, every

timezone = "Europe/Berlin"
broker_url = "sqlite:///broker.db"
beat_schedule = {
    "sync-crm": {"task": "shop.tasks.sync", "schedule": every(minutes=5)},
    "report-sales": {"task": "shop.tasks.report", "schedule": cron("30 * * * *")},
}
"""


class Told:
    """A broker in which the test says what became of slots."""

    def __init__(self) -> None:
        self.broker = SQLiteBroker(
            Path("broker.db"), namespace="default", clock=FakeClock(NOW)
        )
        self.term: Term = lead(self.broker)

    def begin(self, when: Instant, *told: tuple[str, Record]) -> None:
        self.broker.write_ledger(self.term, {}, (), 0, page=told_page(when, 0, told))

    def sent(self, entry: str, slot: Instant, late: int = 6) -> None:
        page = batch_page(slot + late, 0, [entry], [slot], {}, [], [])
        self.broker.emit(self.term, [emission(entry, slot)], HOUR, page=page)

    def dropped(
        self, entry: str, first: Instant, last: Instant, number: int, why: str
    ) -> None:
        drops = {0: [(why, first, last, number)]}
        page = batch_page(last + SECOND, 0, [entry], [last], drops, [0], [])
        batch = [emission(entry, last, route=None)]
        self.broker.emit(self.term, batch, HOUR, page=page)

    def move(self, entry: str, slot: Instant) -> None:
        """Move the ledger past a slot without a word."""
        self.broker.write_ledger(self.term, {entry: Mark(slot, "x")}, (), 0)


@pytest.fixture
def told(folder: Path) -> Iterator[Told]:
    (folder / "celeryconfig.py").write_text(CONFIG)
    told = Told()
    told.begin(at("2026-11-23T13:02:00+01:00"))
    yield told
    told.broker.close()


@pytest.fixture
def past(told: Told) -> Told:
    """The past hour, in which all went well but for some slots that were dropped."""
    told.sent("report-sales", HALF_PAST, late=250 * SECOND)
    told.dropped("sync-crm", HALF_PAST - 25 * MINUTE, HALF_PAST, 6, "coalesced")
    for slot in range(HALF_PAST + 5 * MINUTE, NOW, 5 * MINUTE):
        told.sent("sync-crm", slot)
    return told


HISTORY = """\
ENTRY         SLOT (Europe/Berlin)              LATE     STATE    ENDED  RAN  TASK ID, \
OR WHY
sync-crm      13:35                    sent     +6 ms    unknown              ID-1
report-sales  13:30                    sent     +4m 10s  unknown              ID-2
sync-crm      13:05 .. 13:30, 6 slots  dropped                                coalesced

history at sqlite:///broker.db begins 23 Nov 2026 13:02:00
"""


def test_history_says_when_slots_were_sent_or_why_not(run: Run, past: Told) -> None:
    shown = run("history", "--to", "13:35").stdout
    first = run_id("default", "sync-crm", 0, HALF_PAST + 5 * MINUTE)
    second = run_id("default", "report-sales", 0, HALF_PAST)

    lines = shown.replace(first, "ID-1").replace(second, "ID-2").splitlines()
    assert lines == HISTORY.splitlines()


NARROW = """\
ENTRY         SLOT (Europe/Berlin)              LATE     STATE    RAN
sync-crm      13:35                    sent     +6 ms    unknown
report-sales  13:30                    sent     +4m 10s  unknown
sync-crm      13:05 .. 13:30, 6 slots  dropped  coalesced
"""


@pytest.mark.usefixtures("past")
def test_a_narrow_terminal_shows_why_a_slot_was_dropped_and_no_ids(run: Run) -> None:
    shown = run("history", "--to", "13:35", screen=Screen(width=80)).stdout

    assert shown.startswith(NARROW)
    wider = run("history", "--to", "13:35", screen=Screen(width=112)).stdout
    assert wider.splitlines()[0].split()[-5:] == ["RAN", "TASK", "ID,", "OR", "WHY"]
    assert "ENDED" not in wider


def test_all_slots_have_seconds_if_one_has(run: Run, told: Told) -> None:
    told.sent("sync-crm", HALF_PAST)
    told.sent("sync-crm", HALF_PAST + 2 * SECOND)

    lines = run("history").stdout.splitlines()

    assert [line.split()[1] for line in lines[1:3]] == ["13:30:02", "13:30:00"]


def test_history_of_one_entry_has_its_last_runs_first(run: Run, past: Told) -> None:
    lines = run("history", "sync-crm", "--limit", "2").stdout.splitlines()

    assert lines[0].startswith("SLOT (Europe/Berlin)  ")
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["14:05", "sent"],
        ["14:00", "sent"],
    ]
    assert lines[4].startswith("the last 2 of 8: --limit 8 shows all.  history at ")


def test_history_shows_results_where_there_are_some(
    run: Run, past: Told, folder: Path
) -> None:
    config = folder / "celeryconfig.py"
    config.write_text(f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n')
    backend = connect(load(Wanted()).settings)
    slot = HALF_PAST + 35 * MINUTE
    id = run_id("default", "sync-crm", 0, slot)
    done = "2026-11-23T13:05:12.106000+00:00"
    backend.store([Meta(id, "SUCCESS", date_done=done, runtime=11.9)])
    backend.close()

    [_, line, *_] = run("history", "sync-crm", "--limit", "1").stdout.splitlines()
    assert line.split() == [
        *("14:05", "sent", "+6", "ms", "ok", "after", "12.1", "s", "11.9", "s", id)
    ]


@pytest.mark.parametrize(
    ("screen", "bars"),
    [(Screen(width=80), "_=_#."), (Screen(width=80, utf8=True), "▁▅▁█▂")],
    ids=["ascii", "utf-8"],
)
def test_show_has_the_run_times_that_results_tell(
    run: Run, past: Told, folder: Path, screen: Screen, bars: str
) -> None:
    config = f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n'
    (folder / "celeryconfig.py").write_text(config)
    unknown, *ids = (
        run_id("default", "sync-crm", 0, HALF_PAST + number * 5 * MINUTE)
        for number in range(1, 7)
    )
    with closing(connect(load(Wanted()).settings)) as backend:
        backend.store([Meta(unknown, "SUCCESS")])
        spans = zip(ids, [0.9, 12.0, 1.0, 20.0, 3.0], strict=True)
        backend.store([Meta(id, "SUCCESS", runtime=ran) for id, ran in spans])

    shown = run("show", "sync-crm", screen=screen).stdout
    about = json.loads(run("show", "sync-crm", "--json").stdout)

    line = f"  run time     p50 3.0 s   {bars}   over 5 runs"
    assert line in shown.splitlines()
    assert about["run_time"] == {"runs": 5, "p50": 3, "p99": 20, "worst": 20}
    assert [one["run_time"] for one in about["runs"]][:3] == [None, 3, 20]


def test_status_says_how_the_last_runs_went(run: Run, past: Told, folder: Path) -> None:
    config = f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n'
    (folder / "celeryconfig.py").write_text(config)
    assert "  runs  " not in run("status").stdout
    first, second, third, *_ = (
        run_id("default", "sync-crm", 0, HALF_PAST + number * 5 * MINUTE)
        for number in range(1, 7)
    )
    metas = [
        Meta(first, "SUCCESS", runtime=11.9),
        Meta(second, "FAILURE", ValueError("no"), runtime=0.2),
        Meta(third, "STARTED"),
    ]
    with closing(connect(load(Wanted()).settings)) as backend:
        backend.store(metas)

    lines = run("status").stdout.splitlines()
    [line] = [x for x in lines if x.startswith("  runs ")]
    assert not any("its last run failed" in x for x in lines)
    told = "runs 2 of the last 8 ended, 1 failed ran p50 11.9 s"
    assert " ".join(line.split()) == told
    document = json.loads(run("status", "--json").stdout)
    assert document["runs"] == {"sent": 8, "ended": 2, "failed": 1, "p50": 11.9}
    assert unsaid(document) == set()


def test_status_names_entries_whose_last_run_failed(
    run: Run, past: Told, folder: Path
) -> None:
    config = f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n'
    (folder / "celeryconfig.py").write_text(config)
    past.sent("report-sales", NOW - MINUTE)
    before, last = HALF_PAST + 30 * MINUTE, HALF_PAST + 35 * MINUTE
    with closing(connect(load(Wanted()).settings)) as backend:
        for entry, slot, state in (
            ("sync-crm", before, "FAILURE"),
            ("sync-crm", last, "STARTED"),
            ("report-sales", HALF_PAST, "FAILURE"),
            ("report-sales", NOW - MINUTE, "SUCCESS"),
        ):
            id = run_id("default", entry, 0, slot)
            value = ValueError("no") if state == "FAILURE" else None
            backend.store([Meta(id, state, value)])

    shown = run("status").stdout
    problems = json.loads(run("status", "--json").stdout)["problems"]

    assert "sync-crm: its last run failed (see: beatd show sync-crm)" in shown
    assert [one["kind"] for one in problems].count("failing") == 1
    assert "report-sales: its last run" not in shown


def test_a_run_that_failed_says_why(run: Run, past: Told, folder: Path) -> None:
    config = f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n'
    (folder / "celeryconfig.py").write_text(config)
    id = run_id("default", "report-sales", 0, HALF_PAST)
    secret = ValueError("no disk;\npassword=HUSH " + "x" * 300)
    with closing(connect(load(Wanted()).settings)) as backend:
        backend.store([Meta(id, "FAILURE", secret)])

    shown = run("show", "report-sales").stdout
    [told] = json.loads(run("history", "report-sales", "--json").stdout)["runs"]

    assert "  failed       13:30   ValueError('no disk;\\npassword=***" in shown
    assert "HUSH" not in shown + str(told)
    assert told["error"].startswith("ValueError('no disk;")
    assert len(told["error"]) <= 200


def test_a_result_that_cannot_be_read_hides_no_other(
    run: Run, past: Told, folder: Path
) -> None:
    config = f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n'
    (folder / "celeryconfig.py").write_text(config)
    slots = [HALF_PAST + 30 * MINUTE, HALF_PAST + 35 * MINUTE]
    bad, good = (run_id("default", "sync-crm", 0, slot) for slot in slots)
    with closing(connect(load(Wanted()).settings)) as backend:
        backend.store([Meta(bad, "SUCCESS"), Meta(good, "SUCCESS")])
    with closing(sqlite3.connect("results.db")) as db, db:
        db.execute("UPDATE results SET data = x'ff' WHERE task_id = ?", (bad,))

    result = run("history", "sync-crm", "--limit", "2")

    states = [line.split()[4] for line in result.stdout.splitlines()[1:3]]
    assert states == ["ok", "unknown"]
    assert result.stderr.startswith(f"no state of 1 run: result of task {bad}: not ")


def test_history_says_if_the_results_do_not_answer(
    run: Run, past: Told, folder: Path
) -> None:
    config = f'{CONFIG}\nresult_backend = "redis://:hush@127.0.0.1:1/0"\n'
    (folder / "celeryconfig.py").write_text(config)

    result = run("history", "sync-crm", "--limit", "1")

    assert " unknown " in result.stdout
    assert result.stderr.startswith("no states of runs: results: redis://:")
    assert "hush" not in result.stderr


def test_history_makes_no_file_of_results(run: Run, past: Told, folder: Path) -> None:
    config = f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n'
    (folder / "celeryconfig.py").write_text(config)

    result = run("history", "sync-crm", "--limit", "1")

    assert " unknown " in result.stdout
    assert result.stderr == ""
    assert not (folder / "results.db").exists()


def test_history_without_any_says_so(run: Run, folder: Path) -> None:
    (folder / "celeryconfig.py").write_text(CONFIG)

    assert run("history").stdout == "no history yet at sqlite:///broker.db\n"
    assert not (folder / "broker.db").exists()


def test_history_of_an_unknown_entry_names_the_near_one(run: Run, past: Told) -> None:
    output = run("history", "report-sale", status=3).output

    assert "no entry named 'report-sale'" in output
    assert "did you mean 'report-sales'?" in output


def test_an_entry_that_is_gone_has_a_history(run: Run, past: Told) -> None:
    past.sent("gone", NOW - MINUTE)

    assert "sent" in run("history", "gone").stdout


def test_history_says_what_was_lost(run: Run, past: Told) -> None:
    lost = Record(HALF_PAST, 0, What.LOST, last=HALF_PAST + MINUTE)
    past.begin(NOW, (EVERYWHERE, lost))

    assert (
        "; lost with the broker's data: 23 Nov 2026 13:30:00 to 23 Nov 2026 13:31:00"
    ) in run("history").stdout


AUDIT = """\
ENTRY         SLOTS  SENT  WORST    DROPPED      UNCERTAIN  UNKNOWN  WAITING  MISSING
sync-crm      13     7     +6 ms    6 coalesced  0          0        0        0
report-sales  1      1     +4m 10s  0            0          0        0        0

14 slots, 23 Nov 2026 13:03:00 to 23 Nov 2026 14:05:12 (Europe/Berlin): \
every slot is accounted for.
history at sqlite:///broker.db begins 23 Nov 2026 13:02:00
"""


def test_audit_accounts_for_every_slot(run: Run, past: Told) -> None:
    shown = run("audit", "--from", "13:03").stdout

    assert shown == AUDIT


@pytest.mark.usefixtures("past")
def test_a_narrow_audit_leaves_out_columns_of_zeros_and_never_the_missing(
    run: Run,
) -> None:
    lines = run("audit", "--from", "13:03", screen=Screen(width=80)).stdout.splitlines()

    assert lines[0].split() == ["ENTRY", "SLOTS", "SENT", "WORST", "DROPPED", "MISSING"]
    assert max(map(len, lines)) <= 80


def test_audit_names_every_slot_where_that_is_asked_for(run: Run, past: Told) -> None:
    words = ["audit", "--from", "13:03", "--slots"]
    shown = run(*words).stdout
    found = json.loads(run(*words, "--json").stdout)["entries"]

    assert "report-sales  13:30                 sent     +4m 10s" in shown
    assert shown.count(" coalesced\n") == 6
    assert [len(one["each"]) for one in found] == [13, 1]
    assert found[1]["each"][0]["slot"] == "2026-11-23T13:30:00+01:00"
    assert found[1]["each"][0]["what"] == "sent"
    assert "each" not in json.loads(run(*words[:3], "--json").stdout)["entries"][0]


def test_audit_says_honestly_where_the_history_does_not_reach(
    run: Run, past: Told
) -> None:
    shown = run("audit", "--from", "12:00").stdout

    assert "unknown, as the history does not reach there. Every other slot is" in shown
    assert "begins 23 Nov 2026 13:02:00" in shown


def test_audit_exits_with_1_if_a_slot_is_missing(run: Run, told: Told) -> None:
    told.move("report-sales", HALF_PAST)
    told.dropped("sync-crm", HALF_PAST - 25 * MINUTE, NOW - 12 * SECOND, 13, "paused")

    shown = run("audit", "--from", "13:03", status=1).stdout
    assert "missing: report-sales 13:30\n" in shown
    assert ": 1 slot missing.\n" in shown


def test_audit_exits_with_1_if_a_slot_has_waited_for_long(run: Run, told: Told) -> None:
    told.dropped("sync-crm", HALF_PAST - 25 * MINUTE, NOW - 12 * SECOND, 13, "paused")

    shown = run("audit", "--from", "13:03", status=1).stdout
    assert "waiting: report-sales 13:30\n" in shown
    assert "1 slot waiting for more than a minute." in shown
    assert run("audit", "--from", "13:03", "sync-crm").stdout.count("accounted") == 1


def test_audit_names_what_is_wrong_with_its_times(run: Run, past: Told) -> None:
    output = run("audit", "--from", "2026-11-24", status=2).output
    assert "'2026-11-24' lies after the end" in output

    output = run("audit", "--to", "soon", status=2).output
    assert "expected '15:00', '2027-03-28' or '2027-03-28 02:30', got 'soon'" in output


@pytest.mark.parametrize(
    "words", [["history"], ["show", "sync-crm"], ["audit", "--from", "13:03"]]
)
def test_documents_are_as_the_page_says(run: Run, past: Told, words: list[str]) -> None:
    found = json.loads(run(*words, "--json").stdout)

    assert found["schema"] == f"beatd.{words[0]}/1"
    assert unsaid(found) == set()


def test_nothing_is_wider_than_the_terminal(run: Run, past: Told) -> None:
    for words in (["history"], ["audit", "--from", "13:03"]):
        shown = run(*words, screen=Screen(width=80)).stdout
        table = shown.split("\n\n")[0].splitlines()
        assert max(map(len, table)) <= 100


def test_the_list_has_a_sign_for_each_of_the_last_slots(run: Run, past: Told) -> None:
    ascii = run("list", screen=Screen()).stdout.splitlines()
    assert [line.split()[-1] for line in ascii[1:3]] == ["->>>>>>>", "~"]
    assert ascii[0].endswith("  LAST 15")
    assert "LAST 15: > sent, ~ late, - dropped" in ascii
    assert ascii[0].index("LAST 15") == ascii[1].index("->>>")

    utf8 = run("list", screen=Screen(utf8=True)).stdout
    assert "⤼➤➤➤➤➤➤➤" in utf8
    assert "\x1b[38;5;208m◷\x1b[0m" in run("list", "--color", "always").stdout


def test_json_has_what_the_signs_show_the_oldest_first(run: Run, past: Told) -> None:
    found = json.loads(run("list", "--json").stdout)
    recent = {one["name"]: one["recent"] for one in found["entries"]}

    assert [one["kind"] for one in recent["sync-crm"]] == ["dropped", *["sent"] * 7]
    assert recent["report-sales"] == [
        {"slot": "2026-11-23T13:30:00+01:00", "slot_ts": HALF_PAST / 1000}
        | {"kind": "late"}
    ]


def test_the_list_says_how_the_last_run_ended_if_the_results_know(
    run: Run, past: Told, folder: Path
) -> None:
    config = folder / "celeryconfig.py"
    config.write_text(f'{CONFIG}\nresult_backend = "sqlite:///results.db"\n')
    last = {"sync_crm": "2026-11-23T14:05:00", "report_sales": "2026-11-23T13:30:00"}
    ran(**{name: f"{at_}+01:00" for name, at_ in last.items()})
    id = run_id("default", "sync-crm", 0, HALF_PAST + 35 * MINUTE)
    with closing(connect(load(Wanted()).settings)) as backend:
        backend.store([Meta(id, "FAILURE")])

    for width in (80, 120):
        screen = Screen(width=width, color=True)
        shown = run("list", screen=screen).stdout
        assert "  \x1b[31m\x1b[1mFAIL\x1b[0m" in shown
        assert "2 entries, 1 failing." in shown
        [report] = [one for one in shown.splitlines() if one.startswith("report-s")]
        assert "sent" in report
    states = json.loads(run("list", "--json").stdout)["entries"]
    assert {one["state"] for one in states} == {"sent"}


def test_the_signs_go_first_where_there_is_no_room(run: Run, past: Told) -> None:
    narrow = run("list", screen=Screen(width=80)).stdout

    assert "LAST 15" not in narrow
    assert max(map(len, narrow.splitlines()[:3])) <= 80
    assert "LAST 15" in run("list", screen=Screen(width=110)).stdout


def test_without_an_answer_of_the_broker_the_list_does_without_signs(
    run: Run, folder: Path
) -> None:
    config = CONFIG.replace("sqlite:///broker.db", "redis://127.0.0.1:1/0")
    (folder / "celeryconfig.py").write_text(config)

    result = run("list")
    assert "LAST 15" not in result.stdout
    assert result.stderr.startswith("no LAST 15: ")


SHOWN = """\
sync-crm
  task         shop.tasks.sync()
  queue        celery
  schedule     every 5 min, counted from 1970-01-01 00:00 UTC
  defined      celeryconfig.py:6
  policy       catch-up: only the latest late slot   overlap: allow   jitter: none
  next         14:10 Europe/Berlin (in 4m 48s), 14:15, 14:20, 14:25, 14:30
"""


def test_show_says_what_is_known_of_one_entry(run: Run, past: Told) -> None:
    lines = run("show", "sync-crm").stdout.splitlines()

    assert lines[:7] == SHOWN.splitlines()
    assert lines[7].startswith("  clocks       next clock change: ")
    assert lines[8] == "  counters     none sent yet"
    assert lines[9] == (
        "  lateness     p50 +6 ms   p99 +6 ms   worst +6 ms   over 7 runs"
    )
    assert lines[10] == "  run time     unknown: no result has it"
    assert lines[12].startswith("SLOT (Europe/Berlin)")
    assert lines[13].startswith("14:05")
    assert lines[-2].startswith("history at sqlite:///broker.db begins ")
    assert lines[-1].startswith("source: configuration only")


def test_show_of_a_glob_shows_each_and_a_document_is_of_one(
    run: Run, past: Told
) -> None:
    assert run("show", "*").stdout.count("  lateness ") == 2
    assert "matches several" in run("show", "*", "--json", status=2).output
    assert "no entry named" in run("show", "nobody", status=3).output


@pytest.mark.usefixtures("shop")
def test_show_names_rules_options_and_hides_what_is_secret(run: Run) -> None:
    shown = run("show", "report-sales").stdout

    assert "shop.tasks.report(7, kind='sales', api_token=***)" in shown
    assert "hush" not in shown
    assert "lateness     unknown: the history has no run" in shown
    assert "next         paused by the config" in run("show", "old-import").stdout


def test_show_of_a_bad_entry_says_why(run: Run, folder: Path) -> None:
    entry = {"task": "t", "schedule": "nonsense"}
    (folder / "celeryconfig.py").write_text(f"beat_schedule = {{'a': {entry!r}}}\n")

    assert run("show", "a").stdout.startswith("a: bad\n  schedule")


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (0, "+0 ms"),
        (6, "+6 ms"),
        (900, "+900 ms"),
        (1500, "+1.5 s"),
        (250_000, "+4m 10s"),
        (-5, "-5 ms"),
    ],
)
def test_lateness_in_words(span: int, expected: str) -> None:
    assert lateness(span) == expected
