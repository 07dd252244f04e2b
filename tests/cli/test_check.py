"""`beatd check`."""

import json
from pathlib import Path

import pytest

from beatd.cli import main
from beatd.cli.output import Screen
from beatd.config.loading import Wanted, load
from beatd.message import Limits, read_envelope
from beatd.text import width_of
from tests.cli.conftest import SHOP, Run, ran
from tests.processes import ended
from tests.servers import Server

BROKEN = """\
from beatd.schedules import crontab

timezone = "Europe/Berlin"
beat_schedule = {
    "tick": {"task": "shop.tasks.tick", "schedule": 2},
    "nightly-backup": {"task": "backups.run", "schedule": crontab("30", "2")},
    "month-end": {
        "task": "shop.tasks.month",
        "schedule": crontab(minute=0, hour=6, day_of_month=31, month_of_year=2),
    },
}
"""

REPORT = """\
celeryconfig: 3 entries, 1 error, 1 warning
broker: {folder}/broker.db, which is not there yet

celeryconfig.py:6: warning: entry 'nightly-backup' falls into the clock change of\
 Sun 28 Mar 2027
    02:30 does not exist that day in Europe/Berlin; it runs at 03:00 CEST instead

celeryconfig.py:9: error: entry 'month-end': schedule: day_of_month: can never occur:\
 February has 28 or 29 days
    9 |         "schedule": crontab(minute=0, hour=6, day_of_month=31, month_of_year=2),
      |                                                            ^^
    did you mean 28?

fix the errors; until then beatd schedules the other 2 entries.
"""


@pytest.fixture
def config(folder: Path) -> Path:
    """The config that tests write, found without being named."""
    return folder / "celeryconfig.py"


@pytest.mark.parametrize(
    ("screen", "line_end"),
    [
        (None, "month_of_year=2),"),
        (Screen(width=80), "month_of_"),
        (Screen(width=100, utf8=True), "month_of_year=2),"),
    ],
)
def test_each_problem_has_its_line_and_the_way_out(
    run: Run, config: Path, folder: Path, screen: Screen | None, line_end: str
) -> None:
    config.write_text(BROKEN)

    output = run("check", screen=screen, status=1).stdout

    expected = REPORT.replace("month_of_year=2),", line_end).format(folder=folder)
    if screen is None:
        assert output == expected
        return
    # On a terminal sentences go on in further lines.
    assert output.split() == expected.split()
    lines = [line for line in output.splitlines() if str(folder) not in line]
    assert max(map(len, lines)) <= (screen.width or 0)


def test_a_config_without_problems_is_said_to_be_well(run: Run, config: Path) -> None:
    config.write_text('beat_schedule = {"a": {"task": "a", "schedule": 60}}')

    assert run("check").stdout.splitlines()[0] == "celeryconfig: 1 entry, all is well"


def test_the_file_is_named_that_is_the_broker(
    run: Run, config: Path, folder: Path
) -> None:
    config.write_text("broker_url = 'sqlite:///b.db'")

    missing = f"broker: {folder / 'b.db'}, which is not there yet"
    assert missing in run("check").stdout.splitlines()
    assert run("check", "--quiet").stdout == ""

    config.write_text("broker_url = 'redis://localhost'")
    assert "broker" not in run("check").stdout


def test_a_schedule_file_in_no_directory_is_an_error_if_it_is_named_here(
    run: Run, config: Path
) -> None:
    config.write_text("beat_schedule_filename = 'no/such/x.db'")
    elsewhere = run("check")  # the config may be that of another host
    here = run("check", "--schedule-filename", "no/such/x.db", status=1)
    asked = run("check", "--broker", "sqlite:///b.db", status=1)

    assert "all is well" in elsewhere.stdout
    for one in (here, asked):
        assert (
            "error: schedule file: no/such/x.db cannot be made: there is no directory"
            " no/such (mkdir -p no/such makes it)\n"
            "    --schedule-filename names another file"
        ) in one.stdout


def test_settings_that_cannot_be_used_keep_beatd_from_starting(
    run: Run, config: Path
) -> None:
    config.write_text(
        'timezone = "Europe/Berlim"\n'
        'beat_schedule = {"a": {"task": "a", "schedule": 60}}\n'
    )

    output = run("check", status=1).stdout

    assert "celeryconfig.py:1: error: timezone: " in output
    assert "did you mean 'Europe/Berlin'?" in output
    assert output.endswith("fix the errors; until then beatd refuses to start.\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beat_schedule = {", "celeryconfig.py:1: error: syntax error: '{' was never"),
        ("import nothing_like_it", "celeryconfig.py:1: error: this line "),
        (None, "error: no celeryconfig.py in "),
    ],
)
def test_a_config_that_cannot_be_read_at_all_ends_with_status_78(
    run: Run, config: Path, text: str | None, said: str
) -> None:
    if text is not None:
        config.write_text(text)

    assert said in run("check", status=78).stdout


@pytest.mark.parametrize("name", ["result_backend", "broker_url"])
@pytest.mark.parametrize("address", ["\x1b\n", "redis://h\x1b\n", "redis://h/\x00"])
def test_an_address_with_a_control_character_is_an_error(
    run: Run, config: Path, name: str, address: str
) -> None:
    config.write_text(f"{name} = {address!r}\n")

    said = run("check", status=1).stdout
    assert f"celeryconfig.py:1: error: {name}: '" in said
    assert "until then beatd refuses to start" in said
    assert "\x1b" not in said


@pytest.mark.usefixtures("shop")
def test_warnings_are_errors_when_strict(run: Run) -> None:
    run("check", status=0)
    run("check", "--strict", status=1)


def test_quiet_leaves_the_answer_to_the_exit_status(run: Run, config: Path) -> None:
    config.write_text(BROKEN)

    assert run("check", "--quiet", status=1).output == ""
    assert run("-q", "check", status=1).output == ""


@pytest.mark.parametrize(
    ("line", "reason", "grave"),
    [
        ("%(nope)s %(message)s", "not found in record: 'nope'", "warning"),
        ("%(message)d", "%d format: a real number is required", "warning"),
        ("{message}", "nvalid format '{message}' for '%' style", "error"),
    ],
)
@pytest.mark.parametrize("name", ["worker_log_format", "worker_task_log_format"])
def test_the_formats_of_log_lines_are_tried(
    run: Run, config: Path, name: str, line: str, reason: str, grave: str
) -> None:
    config.write_text(f"enable_utc = True\n{name} = {line!r}\n")

    output = run("check", status=int(grave == "error")).stdout

    assert f"celeryconfig.py:2: {grave}: {name}: {line!r} is no format" in output
    assert reason in " ".join(output.split())


def test_formats_with_the_fields_of_tasks_are_well(run: Run, config: Path) -> None:
    config.write_text(
        "worker_log_format = '%(asctime)s %(processName)s %(message)s'\n"
        "worker_task_log_format = '%(task_name)s %(task_id)s %(message)s'\n"
        "worker_task_log_datefmt = '%Y!'\n"
    )

    assert "all is well" in run("check").stdout


def test_an_unknown_setting_is_shown_by_its_name(run: Run, config: Path) -> None:
    config.write_text("beat_shedule = {}\nif True:\n    task_nonsense = 1\n")

    output = run("check", status=1).stdout

    assert "|                ^^" not in output
    assert "  3 |     task_nonsense = 1\n      |     ^^^^^^^^^^^^^\n" in output


@pytest.mark.parametrize(
    ("status", "text", "marked"),
    [
        (0, "timezon = 'UTC'", "timezon"),
        (1, "beat_schedule = {'夜間': {'taks': 't', 'schedule': 3}}", "'taks'"),
        (
            1,
            "beat_schedule = {'x': {'task': 't', 'schedule': crontab(minut=2)}}",
            "minut",
        ),
    ],
)
def test_the_carets_stand_under_the_misspelt_name_alone(
    run: Run, config: Path, status: int, text: str, marked: str
) -> None:
    config.write_text(f"from beatd import crontab\n{text}\n")

    lines = run("check", status=status).stdout.splitlines()

    at = next(number for number, line in enumerate(lines) if line.endswith(text))
    shown, carets = lines[at], lines[at + 1]
    begin = width_of(shown[: shown.index(marked)])
    assert carets == f"{'':6}| ".ljust(begin) + "^" * len(marked)


def test_what_is_seldom_meant_is_warned_of_once(run: Run, config: Path) -> None:
    config.write_text(
        'timezone = "Europe/Berlin"\n'
        "beat_schedule = {\n"
        '    "fast": {"task": "a", "schedule": 0.25},\n'
        '    **{f"m{n}": {"task": "a", "schedule": "@daily"} for n in range(5)},\n'
        '    "b": {"task": "a", "schedule": "30 2 * * *"},\n'
        '    "b": {"task": "a", "schedule": "30 2 * * *"},\n'
        '    "c": {"task": "a", "schedule": "30 2 * * *", "jitter": 60},\n'
        "}\n"
    )

    lines = [line for line in run("check").stdout.splitlines() if "warning: " in line]

    assert [line.partition("warning: ")[2] for line in lines] == [
        "5 entries, 'm0', 'm1', 'm2' and 2 more, all run at 00:00, Europe/Berlin",
        "entry 'fast' runs every 250 ms",
        "'b' stands twice in one dict, first in line 5",
        "2 entries, 'b' and 'c', fall into the clock change of Sun 28 Mar 2027",
    ]


def test_a_clock_change_that_only_the_second_next_one_is_counts_too(
    run: Run, config: Path
) -> None:
    # 02:30 on the last Sunday of October comes twice; in March it is passed over.
    config.write_text(
        'timezone = "Europe/Berlin"\n'
        'beat_schedule = {"a": {"task": "a", "schedule": "30 2 31 10 *"}}\n'
    )

    output = run("check").stdout

    assert "falls into the clock change of Sun 31 Oct 2027" in output
    assert "02:30 comes twice that day in Europe/Berlin" in output


def test_a_line_that_holds_a_secret_is_not_shown(run: Run, config: Path) -> None:
    config.write_text(
        'broker_transport_options = {"password": "hush", **{}}, 1\n'
        "beat_schedule = {\n"
        '    "a": {"task": "a", "schedule": 0, "kwargs": {"token": "hush"}},\n'
        "}\n"
    )

    output = run("check", status=1).stdout

    assert "celeryconfig.py:1: error: broker_transport_options" in output
    assert "celeryconfig.py:3: error: entry 'a': schedule: " in output
    assert "hush" not in output


def test_long_lines_are_cut_on_a_terminal_only(run: Run, config: Path) -> None:
    config.write_text(
        'beat_schedule = {"a": {"task": "a", "schedule": "nonsense", "description":'
        f' "{"long " * 30}"}}}}\n'
    )

    narrow = run("check", screen=Screen(width=80), status=1).stdout.splitlines()
    piped = run("check", status=1).stdout.splitlines()

    [cut] = [line for line in narrow if line.startswith("    1 | ")]
    assert len(cut) == 80
    assert len(piped[4]) > 200
    assert piped[5] == f"      | {' ' * 48}^^^^^^^^^^"
    assert piped[5] in narrow


def test_github_gets_an_annotation_for_each_problem(run: Run, config: Path) -> None:
    config.write_text(BROKEN)

    assert run("check", "--format", "github", status=1).stdout == (
        "::warning file=celeryconfig.py,line=6::entry 'nightly-backup' falls into the"
        " clock change of Sun 28 Mar 2027%0A02:30 does not exist that day in"
        " Europe/Berlin; it runs at 03:00 CEST instead\n"
        "::error file=celeryconfig.py,line=9,col=60,endColumn=61::entry 'month-end':"
        " schedule: day_of_month: can never occur: February has 28 or 29 days"
        "%0Adid you mean 28?\n"
    )


@pytest.mark.parametrize("words", [["--json"], ["--format", "json"]])
def test_json_counts_and_lists_the_problems(
    run: Run, config: Path, words: list[str]
) -> None:
    config.write_text(BROKEN)

    document = json.loads(run("check", *words, status=1).stdout)

    assert document["schema"] == "beatd.check/1"
    assert (document["entries"], document["usable"]) == (3, 2)
    assert (document["errors"], document["warnings"]) == (1, 1)
    assert document["problems"][1] == {
        "severity": "error",
        "message": "entry 'month-end': schedule: day_of_month: can never occur:"
        " February has 28 or 29 days",
        "hint": "did you mean 28?",
        "file": "celeryconfig.py",
        "line": 9,
        "column": 60,
        "end_column": 61,
    }


# Addresses


def test_a_broker_that_only_celery_speaks_to_is_refused_unasked(
    run: Run, config: Path
) -> None:
    config.write_text(
        'BROKER_URL = ["redis://127.0.0.1", "sqs://guest:hush@127.0.0.1//"]\n'
        'beat_schedule = {"a": {"task": "a", "schedule": 60}}\n'
        "timezone = 7\n"  # all is said at once
    )

    output = run("check", status=1).stdout

    assert output.startswith("celeryconfig: 1 entry, 2 errors, 1 warning\n")
    assert "celeryconfig.py:1: error: broker_url: 'sqs://guest:***@" in output
    assert output.endswith("fix the errors; until then beatd refuses to start.\n")
    asked = run("check", "--broker", status=1).stdout
    assert "\nbroker: not asked, as settings are wrong\n" in asked
    assert "not asked" not in output
    assert json.loads(run("check", "--json", status=1).stdout)["usable"] == 0


def test_a_result_backend_that_only_celery_writes_to_is_warned_of(
    run: Run, config: Path
) -> None:
    config.write_text(
        'broker_url = "redis://"\nCELERY_RESULT_BACKEND = "mongodb://x"\n'
    )

    output = run("check").stdout

    assert "celeryconfig.py:2: warning: result_backend: 'mongodb://x': beatd " in output
    assert "`beatd worker` refuses to start" in output


def test_tasks_of_a_celery_app_have_any_backend_of_celerys(folder: Path) -> None:
    (folder / "proj.py").write_text(
        "from celery import Celery\n"
        "app = Celery('proj', broker='redis://', backend='cache+memory://')\n"
    )

    assert "all is well" in ended("check", "-A", "proj", cwd=folder).stdout


# --import


def test_import_looks_for_each_entry_s_task(
    run: Run, config: Path, folder: Path
) -> None:
    (folder / "shop_tasks.py").write_text(
        "from beatd import shared_task\n\n@shared_task\ndef report():\n    pass\n"
    )
    config.write_text(
        'imports = ["shop_tasks"]\n'
        "beat_schedule = {\n"
        '    "good": {"task": "shop_tasks.report", "schedule": 60},\n'
        '    "typo": {"task": "shop_tasks.reprot", "schedule": 60},\n'
        "}\n"
    )

    assert "all is well" in run("check").stdout
    assert run("check", "--import", status=1).stdout == (
        "celeryconfig: 2 entries, 1 error, 0 warnings\n"
        f"broker: {folder}/broker.db, which is not there yet\n"
        "\n"
        "celeryconfig.py:4: error: entry 'typo': no task named 'shop_tasks.reprot' was"
        " imported\n"
        "    did you mean 'shop_tasks.report'?\n"
    )


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ('"args": ("x",), "slot_argument": "slot"', "an unexpected keyword argument"),
        ('"slot_argument": "due"', "missing a required argument: 'kind'"),
        ('"args": ("x",), "slot_argument": "due"', ""),
    ],
)
def test_import_tries_the_arguments_of_entries(
    run: Run, config: Path, folder: Path, entry: str, why: str
) -> None:
    (folder / "bound_tasks.py").write_text(
        "from beatd import shared_task\n\n@shared_task(name='bound_tasks.report')\n"
        "def report(kind, due=None):\n    pass\n"
    )
    line = f'"a": {{"task": "bound_tasks.report", "schedule": 60, {entry}}}'
    config.write_text(f'imports = ["bound_tasks"]\nbeat_schedule = {{{line}}}\n')

    elsewhere = config.rename(folder / "elsewhere.py")
    words = ("check", "--import", "--config", str(elsewhere))
    output = run(*words, status=1 if why else 0).stdout

    assert ("bound_tasks.report does not take its arguments: " in output) == bool(why)
    assert why in output


def test_import_says_why_a_module_cannot_be_imported(run: Run, config: Path) -> None:
    config.write_text('imports = ["no_such_module"]\n')

    output = run("check", "--import", status=1).stdout

    assert "error: cannot import no_such_module: no module named" in output


def test_import_says_what_celery_raises_when_it_is_asked_for_tasks(
    folder: Path,
) -> None:
    (folder / "shop_tasks.py").write_text(
        "from celery import Celery\n"
        "app = Celery('shop')\n"
        "app.config_from_object('nowhere_at_all')\n"  # read when it is needed
    )
    (folder / "celeryconfig.py").write_text(
        'imports = ["shop_tasks"]\n'
        'beat_schedule = {"a": {"task": "shop_tasks.report", "schedule": 60}}\n'
    )

    result = ended("check", "--import", cwd=folder)

    assert "Traceback" not in result.stdout + result.stderr
    assert "cannot ask Celery for its tasks: " in result.stdout
    assert "No module named 'nowhere_at_all'" in result.stdout


def test_import_finds_the_tasks_of_an_app(run: Run, folder: Path) -> None:
    (folder / "proj.py").write_text(
        "from beatd import Beatd\n"
        "app = Beatd('proj', timezone='UTC', beat_schedule={\n"
        "    'add': {'task': 'proj.add', 'schedule': 60, 'args': (2, 3)}})\n"
        "@app.task\n"
        "def add(x, y):\n"
        "    return x + y\n"
    )

    assert "1 entry, all is well" in run("check", "-A", "proj", "--import").stdout


# --broker


def test_broker_says_who_answers(run: Run, config: Path, server: Server) -> None:
    config.write_text(f'broker_url = "{server.url()}"\n')

    output = run("check", "--broker").stdout

    assert f"broker {server.url()}" in output
    assert "each slot is queued exactly once" in output
    assert run("check", "--broker", "--json").exit_code == 0


def test_of_several_brokers_each_is_asked_and_the_first_is_the_scheduler_s(
    run: Run, config: Path, server: Server
) -> None:
    schedule = 'beat_schedule = {"tick": {"task": "a", "schedule": 2}}\n'
    urls = f"{server.url()};redis://127.0.0.1:1/0"
    config.write_text(f"broker_url = {urls!r}\n{schedule}")

    output = run("check", "--broker").stdout

    assert f"broker {server.url()}: " in output
    assert "warning: broker redis://127.0.0.1:1/0: " in output
    assert "start it, or name another: broker_url, $BEATD_BROKER_URL_FILE, or" in output
    assert "warning: the scheduler uses only the first of 2 broker addresses" in output
    config.write_text(f"broker_url = {urls!r}\n")
    assert "warning" not in run("check").stdout


def test_broker_warns_of_a_server_that_throws_keys_away(
    run: Run, config: Path, server: Server
) -> None:
    config.write_text(f'broker_url = "{server.url()}"\n')
    with server.configured("maxmemory-policy", "allkeys-lru"):
        output = run("check", "--broker").stdout

    warning = f"warning: broker {server.url()}: its maxmemory-policy is allkeys-lru"
    assert warning in output
    assert "warning" not in run("check", "--broker").stdout


def test_broker_says_how_many_slots_are_uncertain(
    run: Run, config: Path, server: Server
) -> None:
    config.write_text(SHOP)
    ran({}, {}, {"tick": 11}, tick="2026-11-23T14:05:00+01:00")

    said = run("check", "--broker", server.url()).stdout

    assert "of 11 slots it is uncertain whether they ran" in said


@pytest.mark.usefixtures("shop")
def test_rights_that_are_missing_are_named_with_the_rules_that_grant_them(
    run: Run, server: Server
) -> None:
    with server.client() as client:
        rules = ["on", ">s3cret", "~*", "&*", "+@all", "-rpop"]
        client.execute_command("ACL", "SETUSER", "few", *rules)
        url = server.url(user="few:s3cret")
        name = f"broker {url.replace('s3cret', '***')}: its ACL forbids what"

        only = run("check", "--broker", url).stdout
        client.execute_command("ACL", "SETUSER", "few", "-hset", "resetkeys", "~{*")
        said = run("check", "--broker", url, status=1).stdout
        client.execute_command("ACL", "DELUSER", "few")

    assert f"warning: {name} a worker needs: 'RPOP'" in only
    assert "permit it there: ACL SETUSER 'few' +rpop\n" in only
    assert f"error: {name} a scheduler needs: 'HSET', '_kombu*', 'celery*'" in said
    assert "permit it there: ACL SETUSER 'few' +hset '~_kombu*' '~celery*'\n" in said
    assert "s3cret" not in said


@pytest.mark.usefixtures("shop")
def test_broker_makes_no_file(run: Run, folder: Path) -> None:
    before = sorted(folder.iterdir())

    output = run("check", "--broker", "sqlite:///later.db").stdout

    path = folder / "later.db"
    assert f"broker sqlite:///later.db: {path}, which is not there yet" in output
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis://:hush@127.0.0.1:1/0",
            "\nerror: broker redis://:***@127.0.0.1:1/0: Error 111 ",
        ),
        ("redis://:hu sh@127.0.0.1:1/0", "error: broker redis://:***@127.0.0.1:1/0: "),
        ("redis://:hush/word@127.0.0.1:1/0", "character that has to be encoded"),
        ("redis://:hush;word@127.0.0.1:1/0", "character that has to be encoded"),
        (
            "sqlite:////no/such/x.db",
            "error: broker: /no/such/x.db cannot be made: there is no directory"
            " /no/such (mkdir -p /no/such makes it); sqlite:///PATH names another",
        ),
        ("sqlite:///celeryconfig.py", "error: broker: celeryconfig.py "),
        ("carrier-pigeon://", "carrier-pigeon"),
    ],
)
def test_a_broker_that_does_not_answer_is_an_error(
    run: Run, url: str, said: str
) -> None:
    output = run("check", "--broker", url, status=1).stdout

    assert said in output
    assert "hush" not in output
    assert "word@" not in output
    refused = "carrier-pigeon" in url or "word" in url
    assert ("until then beatd refuses to start" in output) == refused


def test_a_config_that_beatd_refuses_is_what_check_calls_bad(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("timezone = 7\n")

    assert main(["check"]) == 1
    assert main(["list"]) == 78
    assert "timezone" in capsys.readouterr().err


BUILTIN = """\
beat_schedule = {
    "dump": {
        "task": "beatd.run",
        "schedule": 60,
        "kwargs": {"command": "pg_dump -W hunter2"},
    },
    "ping": {"task": "beatd.http", "schedule": 60, "kwargs": {"url": "example.org"}},
    "list": {"task": "beatd.run", "schedule": 60, "args": (["ls", "-l"],)},
}
"""


def test_arguments_of_built_in_tasks_are_checked(run: Run, config: Path) -> None:
    config.write_text(BUILTIN)

    output = run("check", status=1).stdout

    assert "3 entries, 2 errors, 1 warning" in output
    assert (
        "celeryconfig.py:5: error: entry 'dump': kwargs.command: this is a text, and no"
        " shell is asked for; write ['program', 'argument', ...], or add 'shell': True"
    ) in output
    assert (
        "celeryconfig.py:7: error: entry 'ping': kwargs.url: expected an http:// or"
        " https:// address, got 'example.org'"
    ) in output
    assert (
        "celeryconfig.py:8: warning: entry 'list' calls beatd.run, which no worker has"
        " by itself\n    set builtin_tasks = ['beatd.run'], here or where"
    ) in output


def test_a_built_in_task_that_is_named_is_there(run: Run, config: Path) -> None:
    entry = {"task": "beatd.run", "schedule": 60, "args": (["ls"],)}
    names = ["beatd.run"]
    config.write_text(f"builtin_tasks = {names}\nbeat_schedule = {{'a': {entry}}}")

    assert "celeryconfig: 1 entry, all is well\n" in run("check", "--import").stdout

    config.write_text("builtin_tasks = ['beatd.rum']")
    output = run("check", status=1).stdout
    assert "no built-in task named 'beatd.rum'" in output
    assert "did you mean 'beatd.run'?" in output


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({}, "kwargs: beatd.run needs its 'command'"),
        ({"command": ["ls", 5]}, "kwargs.command: expected text, got 5"),
        ({"command": []}, "kwargs.command: expected a list that begins with a program"),
        (
            {"command": ["ls"], "shell": True},
            "kwargs.command: with shell=True expected",
        ),
        ({"comand": ["ls"]}, "kwargs.comand: beatd.run has no such argument; did you"),
        ({"command": ["ls"], "timeout": 0}, "kwargs.timeout: expected more than 0"),
        ({"command": ["ls"], "env": {"A": 1}}, "kwargs.env: expected text, got 1"),
        ({"command": ["ls"], "env": {"A=": "1"}}, "kwargs.env: expected names of"),
        ({"command": ["ls"], "ok_statuses": 256}, "kwargs.ok_statuses: expected a num"),
        ({"command": ["a\0"]}, "kwargs.command: expected a text without NUL"),
    ],
)
def test_each_argument_of_a_command_is_checked(
    run: Run, config: Path, kwargs: dict[str, object], problem: str
) -> None:
    entry = {"task": "beatd.run", "schedule": 60, "kwargs": kwargs}
    config.write_text(f"beat_schedule = {{'a': {entry}}}")

    assert f"entry 'a': {problem}" in run("check", status=1).stdout


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        (
            {"url": "http://bob:secret@[/"},
            "kwargs.url: expected an http:// or https://",
        ),
        ({"url": "http://h/ x"}, "kwargs.url: expected"),
        ({"url": "http://h:0/"}, "kwargs.url: expected"),
        ({"url": "http://h", "method": "GET /"}, "kwargs.method: expected the name of"),
        (
            {"url": "http://h", "headers": {"A\n": "b"}},
            "kwargs.headers: expected names",
        ),
        ({"url": "http://h", "headers": {"A": "b\n"}}, "kwargs.headers: A: expected"),
        ({"url": "http://h", "json": 1, "body": "x"}, "kwargs.json: there is a body"),
        (
            {"url": "http://h", "expected_status": 99},
            "kwargs.expected_status: expected",
        ),
    ],
)
def test_each_argument_of_a_request_is_checked(
    run: Run, config: Path, kwargs: dict[str, object], problem: str
) -> None:
    entry = {"task": "beatd.http", "schedule": 60, "kwargs": kwargs}
    config.write_text(f"beat_schedule = {{'a': {entry}}}")

    output = run("check", status=1).stdout
    assert f"entry 'a': {problem}" in output
    assert "secret" not in output


def test_monitors_see_no_secret_of_a_request(run: Run, config: Path) -> None:
    config.write_text(
        """
builtin_tasks = ["beatd.http"]
beat_schedule = {"a": {"task": "beatd.http", "schedule": 60, "kwargs": {
    "url": "https://bob:hunter2@h/?token=hunter2",
    "headers": {"Authorization": "Bearer hunter2", "Cookie": "a=hunter2"},
}}}
"""
    )
    (entry,) = load(Wanted(config=str(config))).entries

    sent = entry.message.made(id="i", now=0, slot=0, expires=None).message
    shown = read_envelope(sent, Limits()).kwargsrepr

    assert shown == (
        "{'url': 'https://bob:***@h/?token=***',"
        " 'headers': {'Authorization': ***, 'Cookie': ***}}"
    )


def test_six_fields_are_said_in_both_readings(run: Run, config: Path) -> None:
    config.write_text(
        """
from beatd.schedules import cron

beat_schedule = {
    "noon": {"task": "a", "schedule": "0 0 12 * * *"},
    "meant": {"task": "a", "schedule": cron("0 0 12 * * *", seconds="last")},
    "first": {"task": "a", "schedule": cron("0 0 12 * * *", seconds="first")},
    "nine": {"task": "a", "schedule": "0 30 9 * * *"},
}
"""
    )

    output = run("check", status=1).stdout

    assert "4 entries, 1 error, 1 warning" in output
    assert (
        "celeryconfig.py:5: warning: entry 'noon' runs every second, at minute 0 of"
        " hour 0 on the 12th of every month: the seconds come last\n"
        "    with seconds='first' beside '0 0 12 * * *' in cron(...) it means at 12:00"
        " every day; seconds='last' says that it is meant\n"
    ) in output
    assert (
        "with the seconds first, write cron('0 30 9 * * *', seconds='first')" in output
    )


def test_a_schedule_with_a_clock_of_its_own_is_a_bad_entry(
    run: Run, config: Path
) -> None:
    config.write_text(
        """
from datetime import datetime
from zoneinfo import ZoneInfo

from beatd.schedules import crontab


def tokyo():
    return datetime.now(ZoneInfo("Asia/Tokyo"))


beat_schedule = {"a": {"task": "a", "schedule": crontab(0, 7, nowfun=tokyo)}}
"""
    )

    output = run("check", status=1).stdout

    assert (
        "celeryconfig.py:12: error: entry 'a': schedule: nowfun: it has a clock of its"
        " own, which beatd cannot ask ahead of time"
    ) in output
    assert "leave nowfun out; 'timezone' in the entry says in which zone" in output


def hints(run: Run, config: Path, entry: str, imports: str = "") -> str:
    """Return what `check` says of one entry."""
    config.write_text(
        "from beatd.schedules import cron, crontab, every, once\n"
        "from datetime import UTC, datetime, timedelta\n"
        f"{imports}\n"
        "timezone = 'Europe/Berlin'\n"
        f"beat_schedule = {{'a': {{'task': 'a', {entry}}}}}\n"
    )
    said = run("check").stdout
    return "" if "all is well" in said else said.split("warning: ", 1)[1].rstrip()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "'schedule': crontab(hour=7)",
            "entry 'a' runs at each minute from 7:00 to 7:59\n"
            "    it runs once, at 7:00, with 0 as its minute, not *",
        ),
        (
            "'schedule': '* 8,20 * * *'",
            "entry 'a' runs at each minute from 8:00 to 8:59 and 20:00 to 20:59\n"
            "    it runs once, at 8:00, with 0 as its minute, not *",
        ),
        ("'schedule': crontab(hour='8-18')", ""),
        ("'schedule': crontab(minute='*/5', hour=7)", ""),
        ("'schedule': crontab()", ""),
        (
            "'schedule': once('2026-01-01T06:00')",
            "entry 'a' does not run any more: its moment has passed\n"
            "    it was Thu 1 Jan 2026 06:00 (Europe/Berlin)",
        ),
        ("'schedule': once('2027-01-01T06:00')", ""),
        (
            "'schedule': 60, 'end_time': datetime(2026, 1, 1, tzinfo=UTC)",
            "entry 'a' does not run any more: its end_time has passed\n"
            "    it was Thu 1 Jan 2026 01:00 (Europe/Berlin)",
        ),
        (
            "'schedule': 60, 'options': {'expires': 0.5}",
            "entry 'a': its messages expire after 500 ms\n"
            "    expires is in seconds; workers do not run what has expired",
        ),
        (
            "'schedule': 60, 'options': {'expires': datetime(2026, 1, 1, tzinfo=UTC)}",
            "entry 'a': its messages have expired when they are sent\n"
            "    no worker runs them; expires is seconds, a moment, or 'next'",
        ),
        ("'schedule': 0.5, 'options': {'expires': 'next'}", None),
        ("'schedule': 60, 'options': {'expires': 1}", ""),
    ],
)
def test_what_is_seldom_meant_is_a_warning(
    run: Run, config: Path, entry: str, said: str | None
) -> None:
    found = hints(run, config, entry)

    if said is None:
        assert "expire" not in found
    else:
        assert found == said


def test_a_schedule_that_is_drawn_anew_at_each_reading_is_a_warning(
    folder: Path,
) -> None:
    (folder / "drawn.py").write_text("import random\nMINUTE = random.randint(0, 10**9)")
    (folder / "celeryconfig.py").write_text(
        """
from datetime import UTC, datetime, timedelta
from beatd.schedules import cron, crontab, every
from drawn import MINUTE

beat_schedule = {
    "drawn": {"task": "a", "schedule": every(2 * 10**9, offset=MINUTE)},
    "bounded": {"task": "a", "schedule": 60, "start_time": datetime.now(UTC)},
    "hashed": {"task": "a", "schedule": cron("H 3 * * *")},
    "late": {"task": "a", "schedule": 60, "kwargs": {"now": str(datetime.now(UTC))}},
}
"""
    )

    answer = ended("check", cwd=folder)

    assert "4 entries, 0 errors, 2 warnings" in answer.stdout
    assert (
        "celeryconfig.py:7: warning: entry 'drawn' has another schedule each time that"
        " the config is read\n    each scheduler, and each restart, has other slots; H"
        " in a cron expression is a number that the entry's name decides:"
        " cron('H 3 * * *')"
    ) in answer.stdout
    assert (
        "celeryconfig.py:8: warning: entry 'bounded' has other bounds or policies each"
        " time that the config is read"
    ) in answer.stdout
    assert answer.returncode == 0


def test_a_drawn_schedule_of_a_celery_app_is_a_warning(folder: Path) -> None:
    (folder / "proj.py").write_text(
        """
import random
from celery import Celery

app = Celery("proj")
app.conf.beat_schedule = {
    "drawn": {"task": "a", "schedule": 100_000 + random.randint(0, 10**6)},
    "plain": {"task": "a", "schedule": 60},
}
"""
    )

    said = ended("check", "-A", "proj", cwd=folder).stdout

    assert "warning: entry 'drawn' has another schedule each time" in said
    assert "'plain'" not in said


def test_what_a_helper_raises_for_an_entry_is_at_the_helper_s_line_too(
    folder: Path,
) -> None:
    (folder / "helper.py").write_text(
        """
from beatd.schedules import crontab


def minutes():
    return 1 / 0


def hourly(minute):
    return crontab(minute=minute)
"""
    )
    (folder / "celeryconfig.py").write_text(
        """
from helper import hourly, minutes

beat_schedule = {
    "a": {"task": "a", "schedule": minutes()},
    "b": {"task": "a", "schedule": 5, "args": [minutes()]},
    "c": {"task": "a", "schedule": hourly(61)},
}
"""
    )

    said = ended("check", cwd=folder).stdout

    raised = "this raised ZeroDivisionError: division by zero (helper.py:6)"
    assert f"celeryconfig.py:5: error: entry 'a': schedule: {raised}\n" in said
    assert f"celeryconfig.py:6: error: entry 'b': args: {raised}\n" in said
    assert "celeryconfig.py:7: error: entry 'c': schedule: minute: cannot read" in said
    assert "(helper.py:10)" in said
