"""Crontabs as config modules: each job an entry, or a comment with its reason."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.cli.crontab_out import crontab_module
from beatd.config.loading import Wanted, examine, examine_source
from beatd.config.source import Source
from beatd.migrate.config_text import module_text
from beatd.migrate.crontab import Crontab
from beatd.migrate.found import FoundEntry
from tests.processes import beatd, ended, environment
from tests.servers import PATIENCE, eventually

HOMES = {None: "/home/me", "root": "/root"}


def parts_of(text: str | bytes, *, system: bool = False) -> list[FoundEntry | str]:
    data = text.encode() if isinstance(text, str) else text
    return [*Crontab(HOMES.get, system=system).parts(data)]


def entry_of(text: str, *, system: bool = False) -> dict[str, Any]:
    """Return what is written for the only job of a crontab."""
    (one,) = [p for p in parts_of(text, system=system) if isinstance(p, FoundEntry)]
    assert one.written is not None
    return dict(one.written)


def run(**kwargs: object) -> dict[str, object]:
    kwargs = {"cwd": "/home/me", **kwargs}
    return {"task": "beatd.run", "schedule": "* * * * *", "kwargs": kwargs}


@pytest.mark.parametrize(
    ("command", "kwargs"),
    [
        ("df -h", {"command": ["df", "-h"]}),
        ("/opt/a.sh 'x y' \"z\"", {"command": ["/opt/a.sh", "x y", "z"]}),
        ("a | b", {"command": "a | b", "shell": True}),
        ("a > /dev/null 2>&1", {"command": "a > /dev/null 2>&1", "shell": True}),
        ("cd /srv && ./a", {"command": "cd /srv && ./a", "shell": True}),
        ("cd /srv", {"command": "cd /srv", "shell": True}),
        ("A=1 b", {"command": "A=1 b", "shell": True}),
        ("echo $HOME", {"command": "echo $HOME", "shell": True}),
        ("echo it's", {"command": "echo it's", "shell": True}),
        ("a # said", {"command": "a # said", "shell": True}),
        (r"date +\%F", {"command": ["date", "+%F"]}),
        ("mail me%Hello%you", {"command": ["mail", "me"], "input": "Hello\nyou\n"}),
        (r"mail me%100\% sure%", {"command": ["mail", "me"], "input": "100% sure\n"}),
        ("a%", {"command": ["a"], "input": "\n"}),
    ],
)
def test_a_command_has_a_shell_only_if_it_needs_one(
    command: str, kwargs: dict[str, object]
) -> None:
    assert entry_of(f"* * * * * {command}") == run(**kwargs)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("*/5 4 1,15 jan-mar fri a", {"schedule": "*/5 4 1,15 jan-mar fri"}),
        ("0\t4  *\t* 7\ta", {"schedule": "0 4 * * 7"}),
        ("@Daily a", {"schedule": "@daily"}),
        ("-0 4 * * * a", {"schedule": "0 4 * * *"}),
        ("0~30 ~ * * * a", {"schedule": "H(0-30) H * * *"}),
        ("CRON_TZ = Asia/Tokyo\n* * * * * a", {"timezone": "Asia/Tokyo"}),
        ("RANDOM_DELAY=5\n* * * * * a", {"jitter": 300}),
    ],
)
def test_a_schedule_is_what_cron_has(text: str, changes: dict[str, object]) -> None:
    assert entry_of(text) == {**run(command=["a"]), **changes}


@pytest.mark.parametrize(
    ("above", "kwargs"),
    [
        ("PATH=/bin", {"command": ["a"], "env": {"PATH": "/bin"}}),
        (' A = " b c " ', {"command": ["a"], "env": {"A": " b c "}}),
        ("'A'='$B'", {"command": ["a"], "env": {"A": "$B"}}),
        ("A=", {"command": ["a"], "env": {"A": ""}}),
        ("HOME=/srv", {"command": ["a"], "env": {"HOME": "/srv"}, "cwd": "/srv"}),
        ("SHELL=/bin/bash", {"command": ["a"]}),
    ],
)
def test_variables_are_those_of_the_jobs_below(
    above: str, kwargs: dict[str, object]
) -> None:
    assert entry_of(f"{above}\n* * * * * a\nA=later") == run(**kwargs)


def test_another_shell_reads_what_needs_one() -> None:
    text = "SHELL=/bin/bash\n* * * * * a | b"

    assert entry_of(text) == run(command=["/bin/bash", "-c", "a | b"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("@reboot a", "beatd does not know of boots"),
        ("@every_minute a", "no '@every_minute'"),
        ("MAILTO=ops@example.org", "beatd sends no mail"),
        ("LOGNAME=me", "that is the user as whom the worker runs"),
        ("CRON_TZ=Europe/Pariss", "did you mean 'Europe/Paris'?"),
        ("61 * * * * a", "minute: "),
        ("* * * * *", "it has no command"),
        ("* * *", "five fields and a command are needed"),
        ("0 0 31 2 * a", ""),
        ("5~ * * * * a", "say both bounds"),
    ],
)
def test_what_cannot_be_said_is_a_comment_with_its_reason(line: str, why: str) -> None:
    (one,) = parts_of(line)

    assert isinstance(one, str)
    assert one.startswith(f"{line}\n  left out: ")
    assert why in one


def test_comments_stay_where_they_are() -> None:
    text = "# first\n\n0 4 * * * a\n#second\n0 5 * * * b\n"

    shown = [p if isinstance(p, str) else p.name for p in parts_of(text)]

    assert shown == ["first", "a", "second", "b"]


def test_jobs_of_one_program_have_a_number() -> None:
    text = "0 4 * * * /a/b.sh x\n0 5 * * * b.sh\n"
    text += "0 6 * * * cd /srv; ./x\n0 7 * * * [ -f y ]"

    names = [part.name for part in parts_of(text) if isinstance(part, FoundEntry)]

    assert names == ["b.sh", "b.sh-2", "x", "line-4"]


def test_a_line_that_is_not_in_utf_8_is_left_out() -> None:
    (one,) = parts_of(b"* * * * * echo \xff")

    assert one == "* * * * * echo \\xff\n  left out: it is not in UTF-8"


def test_a_job_of_the_system_goes_to_its_users_worker() -> None:
    assert entry_of("* * * * * root df -h", system=True) == {
        **run(command=["df", "-h"], cwd="/root"),
        "options": {"queue": "cron-root"},
    }


LINES = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[*\d/,~-]{1,4}( [*\d/,-]{1,3}){4} .{0,30}", fullmatch=True),
    st.from_regex(r"@[a-z]{4,7} .{0,30}", fullmatch=True),
    st.from_regex(r" ?['\"]?[A-Z_]{1,9}['\"]? ?= ?.{0,20}", fullmatch=True),
)


@given(st.lists(LINES, max_size=6), st.booleans())
def test_any_crontab_becomes_a_module_whose_entries_are_good(
    lines: list[str], system: bool
) -> None:
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    parts = parts_of(data, system=system)
    text = module_text("it", {"builtin_tasks": ["beatd.run"]}, parts)
    module: dict[str, Any] = {}
    exec(text, module)

    entries = [part for part in parts if isinstance(part, FoundEntry)]
    assert module["beat_schedule"] == {one.name: one.written for one in entries}
    config = examine_source(Source("it", module)).config
    assert config is not None
    assert [str(one) for bad in config.bad for one in bad.problems] == []


CRONTAB = """\
# Nightly
PATH=/usr/local/bin:/usr/bin:/bin
MAILTO=ops@example.org
* * * * * touch {folder}/ran
@reboot /usr/bin/start
"""


def test_the_module_passes_check_and_runs(tmp_path: Path) -> None:
    (tmp_path / "old").write_text(CRONTAB.format(folder=tmp_path))
    made = ended("import", "crontab", "old", "--config-out", "jobs.py", cwd=tmp_path)
    right = ended("check", "--config", "jobs.py", "--strict", cwd=tmp_path)
    text = (tmp_path / "jobs.py").read_text().replace('"* * * * *"', "1")
    (tmp_path / "jobs.py").write_text(text)

    assert made.returncode == 0, made.stderr
    assert made.stderr == "old: 1 entry, 2 lines left out with the reason\n"
    assert made.stdout == (
        "wrote jobs.py\nis it right?  beatd check --config jobs.py\n"
    )
    assert right.returncode == 0, right.stdout
    with beatd("worker", "-B", "--config", "jobs.py", cwd=tmp_path) as worker:
        eventually((tmp_path / "ran").exists, "the job's run")
        assert worker.stop() == 0


def test_standard_input_becomes_standard_output(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "beatd", "import", "crontab", "-", "--system"],
        input="0 4 * * * root df -h\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=True,
    )
    (tmp_path / "jobs.py").write_text(done.stdout)

    assert "beatd worker --uid root -Q cron-root --config" in done.stdout
    assert examine(Wanted("jobs.py", folder=tmp_path)).problems == []


def test_a_crontab_of_the_system_is_known_by_its_users(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("0 4 * * * root df -h\n0 5 * * * nobody-here df\n")
    (tmp_path / "none").write_text("@reboot a\n")

    made = ended("import", "crontab", "old", cwd=tmp_path)
    none = ended("import", "crontab", "none", cwd=tmp_path)
    _, said = crontab_module(b"0 4 * * * root -s hi", "mails", system=False)

    assert "jobs in it begin with users (root): if it is the system's" in made.stderr
    assert "beatd import crontab --system old reads it so" in made.stderr
    assert not any("begin with users" in line for line in said)
    assert none.returncode == 3
    assert none.stderr == (
        "error: none: no job in it can be an entry, 1 line left out with the reason\n"
    )
