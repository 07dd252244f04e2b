"""What users hold by its name: imports, programs, loggers, errors in stored results.

A name that is missing here was removed, or moved to where its users do not find it.
"""

import logging
import os
import socket
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

import beatd
from beatd import errors, signals
from beatd.logs import get_task_logger
from beatd.results.exceptions import exception_of, form_of
from beatd.runs import stdout as printed
from beatd.version import __version__
from tests.processes import ROOT, environment

PUBLIC = {
    "beatd": """
        AsyncResult Beatd Exchange GroupResult Ignore Queue Reject ResultSet Retry
        Signature SoftTimeLimitExceeded StampingVisitor Task TimeLimitExceeded
        __version__ chain chord chunks cron crontab current_app current_task every group
        maybe_signature once
        result_from_tuple rrule shared_task signals signature solar states xmap xstarmap
    """,
    "beatd.app": "AsyncResult Beatd current_app current_task shared_task",
    "beatd.errors": """
        BeatdError BrokerRefused BrokerUnavailable CallsNotSent ChordError
        CommandFailed ConfigError Ignore ItemRefused LedgerMoved MaxRetriesExceeded
        MessageError NoThread NotRegistered Reject RequestFailed ResultRefused
        ResultUnavailable Retry Revoked ScheduleError ScheduleFileError
        SoftTimeLimitExceeded TermOver TimeLimitExceeded Verdict WorkerLost
    """,
    "beatd.exceptions": """
        BackendError CeleryError ChordError EncodeError Ignore ImproperlyConfigured
        MaxRetriesExceededError NotRegistered OperationalError Reject Retry
        SoftTimeLimitExceeded TaskPredicate TaskRevokedError TimeLimitExceeded
        TimeoutError WorkerLostError
    """,
    "beatd.greenlets": "patch patched",
    "beatd.logs": "TaskFormatter get_task_logger",
    "beatd.routing": "Exchange Queue Router worker_direct",
    "beatd.schedules": "ScheduleSpec cron crontab every once read rrule solar",
    "beatd.signals": """
        Signal after_setup_logger after_setup_task_logger after_task_publish
        beat_embedded_init beat_init before_task_publish setup_logging task_failure
        task_postrun task_prerun task_received task_rejected task_retry task_revoked
        task_success task_unknown worker_init worker_process_init
        worker_process_shutdown worker_ready worker_shutdown worker_shutting_down
    """,
    "beatd.states": """
        ALL_STATES EXCEPTION_STATES EXPIRED FAILURE IGNORED PENDING PROPAGATE_STATES
        READY_STATES RECEIVED REJECTED RETRY REVOKED STARTED SUCCESS UNREADY_STATES
    """,
    "beatd.tasks": "ExceptionInfo Registry Request Task current_request",
    "beatd.utils.log": "get_task_logger",
}
"""The public modules, and what users import from each."""

COMPLETE = (
    *("beatd", "beatd.app", "beatd.exceptions", "beatd.schedules", "beatd.states"),
    "beatd.utils.log",
)
"""Modules that say in `__all__` what is public: that, and nothing else."""


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_has_its_public_names(module: str) -> None:
    found = import_module(module)

    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", COMPLETE)
def test_a_module_exports_what_is_public_and_no_more(module: str) -> None:
    assert {*import_module(module).__all__} == {*PUBLIC[module].split()}


def test_no_signal_and_no_error_is_missing_in_the_table() -> None:
    heard = {name for name, one in vars(signals).items() if hasattr(one, "connect")}
    raised = {name for name, one in vars(errors).items() if is_error(one)}

    assert heard == {*PUBLIC["beatd.signals"].split()}
    assert raised == {*PUBLIC["beatd.errors"].split()}


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def test_a_name_that_is_not_public_is_said_to_be_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Celery'"):
        beatd.Celery  # noqa: B018


# Programs


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run this interpreter to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_the_command_is_installed_and_may_be_run_as_a_module() -> None:
    script = Path(sysconfig.get_path("scripts"), "beatd")

    by_script, by_module = python(str(script), "--version"), python("-m", "beatd", "-h")

    assert (by_script.returncode, by_script.stdout) == (0, f"beatd {__version__}\n")
    assert (by_module.returncode, by_module.stderr) == (0, "")
    assert by_module.stdout.startswith("Usage: beatd ")


@pytest.mark.parametrize(
    ("module", "page"),
    [
        ("beatd.config.settings", "settings.md"),
        ("beatd.cli.worker_options", "worker-options.md"),
        ("beatd.cli.log_page", "logs.md"),
        ("beatd.cli.environment", "environment.md"),
    ],
)
def test_a_page_of_the_documentation_is_printed_by_its_module(
    module: str, page: str
) -> None:
    done = python("-m", module)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / "docs" / page).read_text()


def spawned(said: bytes) -> tuple[int, str, bytes]:
    """Run the process that a pool's children are forked from, and tell it `said`.

    Return its exit status, what it printed, and what it answered.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "beatd.spawned", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(),
                text=True,
            )
        ours.sendall(said)
        ours.shutdown(socket.SHUT_WR)
        output, _ = process.communicate()
        return process.returncode, output, ours.recv(4096)


def test_a_process_for_a_pool_ends_quietly_when_the_pool_is_dead() -> None:
    assert spawned(b"") == (os.EX_OK, "", b"")


def test_a_process_for_a_pool_says_what_it_does_not_understand() -> None:
    status, output, answer = spawned((1).to_bytes(4, "big") + b"\x80")

    assert status == os.EX_SOFTWARE
    assert output.startswith("Traceback")
    assert b"missing required field `path`" in answer


# What an import brings with it

NEW_MODULES = """
import sys
before = {*sys.modules}
%s
print(*({*sys.modules} - before), file=sys.stderr)
"""

WAITING = {
    *("asyncio", "concurrent.futures", "logging", "multiprocessing", "queue"),
    *("select", "selectors", "signal", "socket", "ssl", "subprocess", "threading"),
}
"""Modules of the standard library that wait: gevent and eventlet replace parts of them,
or of what they have taken from others."""

PATCHES_FIRST = {"beatd", "beatd.errors", "beatd.greenlets", "beatd.version"}


def modules_after(code: str) -> set[str]:
    """Return the modules that this code imports in a new interpreter."""
    done = python("-c", NEW_MODULES % code)
    assert done.returncode == 0, done.stderr
    return {*done.stderr.split()}


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "beatd"}


def foreign(modules: set[str]) -> set[str]:
    """Return the packages among these modules that somebody else has written."""
    packages = {name.partition(".")[0] for name in modules}
    return packages - sys.stdlib_module_names - {"beatd"}


@pytest.mark.parametrize("module", ["beatd.greenlets", "beatd.__main__"])
def test_what_patches_is_imported_before_all_that_waits(module: str) -> None:
    found = modules_after(f"import {module}")

    assert ours(found) == PATCHES_FIRST | {module}
    assert foreign(found) == set()
    assert found & WAITING == set()


def test_help_imports_neither_commands_nor_what_they_need() -> None:
    found = modules_after(
        """
import beatd.__main__
sys.argv = ["beatd", "--help"]
try:
    beatd.__main__.main()
except SystemExit as end:
    assert end.code == 0
"""
    )

    assert foreign(found) == {"click"}
    assert found & {"asyncio", "logging", "socket", "sqlite3", "ssl"} == set()
    assert len(ours(found)) <= 12


@pytest.mark.parametrize("command", ["list", "check"])
def test_a_command_imports_no_client_of_a_broker_that_is_not_asked(
    tmp_path: Path, command: str
) -> None:
    config = tmp_path / "conf.py"
    config.write_text('beat_schedule = {"tick": {"task": "t", "schedule": 60}}')
    found = modules_after(
        f"""
import beatd.__main__
sys.argv = ["beatd", "{command}", "--config", "{config}"]
try:
    beatd.__main__.main()
except SystemExit as end:
    assert end.code == 0, end.code
"""
    )

    assert foreign(found) & {"redis", "celery", "kombu"} == set()


# Loggers that users configure


def test_the_logger_above_those_of_tasks_has_its_name() -> None:
    above = get_task_logger("shop.chores").parent

    assert above is logging.getLogger("beatd.task")


def test_what_tasks_print_is_logged_under_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    printed.redirect(logging.WARNING)
    try:
        print("four apples")
    finally:
        printed.restore()

    assert caplog.record_tuples == [
        ("beatd.redirected", logging.WARNING, "four apples")
    ]


# Errors in stored results

STORED: list[tuple[Exception, str]] = [
    (errors.BeatdError("text"), "beatd.errors.BeatdError"),
    (errors.BrokerRefused("text"), "beatd.errors.BrokerRefused"),
    (errors.BrokerUnavailable("text"), "beatd.errors.BrokerUnavailable"),
    (errors.Ignore(), "beatd.errors.Ignore"),
    (errors.ResultUnavailable("text"), "beatd.errors.ResultUnavailable"),
    (errors.ItemRefused("text"), "beatd.errors.ItemRefused"),
    (errors.LedgerMoved("text"), "beatd.errors.LedgerMoved"),
    (errors.NoThread("text"), "beatd.errors.NoThread"),
    (errors.TermOver("text"), "beatd.errors.TermOver"),
    (errors.Verdict("text"), "beatd.errors.Verdict"),
    # Not made from their text alone, and so carried as what they are besides.
    (errors.CallsNotSent({0: ValueError("text")}, [None]), "beatd.errors.BeatdError"),
    (errors.ConfigError("shop.py", ["text"]), "beatd.errors.BeatdError"),
    (errors.ResultRefused({0: "text"}), "beatd.errors.ResultUnavailable"),
    (errors.ScheduleError("minute", "text"), "beatd.errors.BeatdError"),
    (errors.ScheduleFileError("text", 78), "beatd.errors.BeatdError"),
    # As Celery's readers know them.
    (errors.ChordError("text"), "celery.exceptions.ChordError"),
    (errors.MaxRetriesExceeded("text"), "celery.exceptions.MaxRetriesExceededError"),
    (errors.MessageError("text"), "kombu.exceptions.EncodeError"),
    (errors.CommandFailed("text"), "beatd.errors.CommandFailed"),
    (errors.RequestFailed("text"), "beatd.errors.RequestFailed"),
    (errors.NotRegistered("shop.add"), "celery.exceptions.NotRegistered"),
    (errors.Reject("text"), "celery.exceptions.Reject"),
    (errors.Retry("text"), "celery.exceptions.Retry"),
    (errors.Revoked("text"), "celery.exceptions.TaskRevokedError"),
    (errors.SoftTimeLimitExceeded(1), "billiard.exceptions.SoftTimeLimitExceeded"),
    (errors.TimeLimitExceeded(1), "billiard.exceptions.TimeLimitExceeded"),
    (errors.WorkerLost("text"), "billiard.exceptions.WorkerLostError"),
]
"""Each error, and the name under which it stands in a result."""


@pytest.mark.parametrize(("error", "name"), STORED, ids=lambda value: str(value))
def test_an_error_stands_in_results_under_its_name(error: Exception, name: str) -> None:
    form = form_of(error, lambda argument: True)

    assert f"{form['exc_module']}.{form['exc_type']}" == name


def test_every_error_is_tried_as_a_result() -> None:
    tried = {type(error).__name__ for error, _ in STORED}

    assert tried == {*PUBLIC["beatd.errors"].split()}


@pytest.mark.parametrize("name", PUBLIC["beatd.errors"].split())
def test_an_error_that_lies_in_a_result_is_found(name: str) -> None:
    kind = getattr(errors, name)

    assert (kind.__module__, kind.__qualname__) == ("beatd.errors", name)


def test_an_error_of_an_earlier_release_is_read_as_that_of_today() -> None:
    form = {
        "exc_type": "BrokerUnavailable",
        "exc_message": ["nobody answers"],
        "exc_module": "beatd.errors",
    }

    found = exception_of(form)

    assert type(found) is errors.BrokerUnavailable
    assert found.args == ("nobody answers",)
