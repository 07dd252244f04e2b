"""Running as a program of the system: background, pid file, user and umask."""

import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

import pytest

from beatd import Beatd
from beatd.errors import ConfigError
from beatd.service.daemon import become, pid_file, umask_of
from tests.processes import ROOT, beatd, ended, environment
from tests.rights import as_nobody, umask
from tests.servers import eventually

CONFIG = """
from beatd import every
broker_url = "sqlite:///broker.db"
result_backend = "sqlite:///results.db"
include = ["chores"]
beat_schedule = {"tick": {"task": "chores.tick", "schedule": every(0.1)}}
"""

CHORES = """
import json
import os
from pathlib import Path
from beatd import shared_task


@shared_task(name="chores.tick")
def tick():
    print("ticks on", os.environ.get("CALLED", "?"))


@shared_task(name="chores.who")
def who():
    mask = os.umask(0)
    os.umask(mask)
    said = [os.getuid(), os.getgid(), os.getgroups(), mask]
    Path("who.part").write_text(json.dumps(said))
    Path("who.part").rename("who.json")
"""

OPTIONS = ("--config", "conf", "--pidfile", "w.pid", "-f", "w.log")
WORKER = ("worker", *OPTIONS, "-c", "1")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with a config; what runs there in the background is ended after it."""
    (tmp_path / "conf.py").write_text(CONFIG)
    (tmp_path / "chores.py").write_text(CHORES)
    yield tmp_path
    for path in tmp_path.rglob("w.pid"):
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def client_of(folder: Path) -> AbstractContextManager[Beatd]:
    urls = [f"sqlite:///{folder}/{name}.db" for name in ("broker", "results")]
    client = Beatd("client", broker=urls[0], backend=urls[1], set_as_current=False)
    return closing(client)


def log_of(folder: Path) -> str:
    path = folder / "w.log"
    return path.read_text() if path.exists() else ""


def pid_in(folder: Path) -> int:
    return int((folder / "w.pid").read_text())


def end(folder: Path) -> None:
    os.kill(pid_in(folder), signal.SIGTERM)
    eventually(lambda: " stopped" in log_of(folder))


# Into the background


@pytest.mark.parametrize(
    "words",
    [
        ("worker", *OPTIONS, "-c", "1", "-B", "-l", "INFO", "-D"),
        ("worker", *OPTIONS, "-c", "1", "-BDl", "INFO"),
        ("worker", *OPTIONS, "-c", "1", "-Dl", "INFO", "-B"),
        (*OPTIONS, "-Dl", "INFO", "worker", "-B"),
        ("worker", *OPTIONS, "-c", "1", "-B", "--loglevel=INFO", "--detach"),
        (*OPTIONS, "-l", "INFO", "--detach"),
    ],
)
def test_detached_it_runs_as_it_was_told_to(here: Path, words: Sequence[str]) -> None:
    result = ended(*words, cwd=here)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    pid = pid_in(here)  # it is there by now
    assert os.getsid(pid) not in (pid, os.getsid(0))
    eventually(lambda: "tick queued" in log_of(here))
    if "worker" in words:
        eventually(lambda: "ticks on" in log_of(here), "a task to run")
    end(here)
    assert not (here / "w.pid").exists()


def test_the_environment_goes_along(here: Path) -> None:
    env = {"BEATD_CONFIG": "conf", "CELERY_WORKER_LOGLEVEL": "INFO", "CALLED": "Ann"}
    options = ("--pidfile", "w.pid", "-f", "w.log", "-c", "1", "-B")

    result = ended("worker", *options, cwd=here, CELERY_WORKER_DETACH="1", **env)

    assert result.returncode == 0, result.stderr
    eventually(lambda: "ticks on Ann" in log_of(here))
    end(here)


def test_relative_paths_count_from_where_the_options_say(here: Path) -> None:
    shop = here / "shop"
    shop.mkdir()
    for path in here.glob("*.py"):
        path.rename(shop / path.name)

    result = ended(*WORKER, "-Dl", "INFO", "--workdir", "shop", cwd=here)

    assert result.returncode == 0, result.stderr
    eventually(lambda: "is ready" in log_of(shop))
    end(shop)
    assert [path.name for path in here.iterdir()] == ["shop"]


def test_whoever_detaches_it_hears_why_it_did_not_start(here: Path) -> None:
    (here / "conf.py").write_text("timezone = 'Europe/Pariss'")

    result = ended(*WORKER, "-D", cwd=here)

    assert result.returncode == 78
    assert "did you mean 'Europe/Paris'?" in result.stderr


def test_what_fails_in_the_background_is_told_to_whoever_waits(here: Path) -> None:
    (here / "chores.py").write_text("import nothing_of_that_name")

    result = ended(*WORKER, "-D", cwd=here)

    assert result.returncode == 78
    assert "nothing_of_that_name" in result.stderr


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_process_that_is_patched_goes_into_the_background_as_others(
    here: Path, pool: str
) -> None:
    fails = ended(*WORKER, "-D", "-P", pool, "--pidfile", "no/w.pid", cwd=here)
    assert fails.returncode == 78
    assert "there is no directory no" in fails.stderr

    works = ended(*WORKER, "-DlINFO", "-P", pool, cwd=here)
    assert works.returncode == 0, works.stderr
    eventually(lambda: "is ready" in log_of(here))
    end(here)


def test_a_second_one_is_refused_where_it_is_started(here: Path) -> None:
    assert ended(*WORKER, "-D", cwd=here).returncode == 0

    second = ended(*WORKER, "-D", cwd=here)

    assert second.returncode == 78
    assert f"process {pid_in(here)} runs and holds it" in second.stderr
    assert "holds it" in log_of(here)


def test_messages_are_removed_once_before_it_works_in_the_background(
    here: Path,
) -> None:
    with client_of(here) as client:
        for _ in range(3):
            client.send_task("chores.tick")

    result = ended(*WORKER, "-Dl", "INFO", "--purge", cwd=here)

    assert result.returncode == 0
    assert result.stderr == "removed 3 messages\n"
    eventually(lambda: "is ready" in log_of(here))
    end(here)
    assert "ticks on" not in log_of(here)


PYTHON = """\
#!/bin/sh
touch {mark}
exec {python} "$@"
"""


@pytest.mark.parametrize("by_setting", [False, True])
def test_another_python_may_be_what_runs_in_the_background(
    here: Path, by_setting: bool
) -> None:
    mark, python = here / "mark", here / "python"
    python.write_text(PYTHON.format(mark=mark, python=sys.executable))
    python.chmod(0o755)
    options = ["--executable", "./python"]
    if by_setting:
        options = []
        (here / "conf.py").write_text(CONFIG + "worker_executable = './python'\n")

    result = ended(*WORKER, "-D", *options, cwd=here)

    assert result.returncode == 0, result.stderr
    assert mark.exists()


def test_a_python_that_is_not_there_is_said(here: Path) -> None:
    result = ended(*WORKER, "-D", "--executable", "no/python", cwd=here)

    assert result.returncode == 78
    assert "cannot start no/python: No such file" in result.stderr


def test_in_the_background_stacks_are_written_to_the_log(here: Path) -> None:
    assert ended(*WORKER, "-D", cwd=here).returncode == 0

    os.kill(pid_in(here), signal.SIGUSR1)

    eventually(lambda: "most recent call first" in log_of(here))


def test_tasks_do_not_take_themselves_for_detached(here: Path) -> None:
    (here / "chores.py").write_text(
        CHORES
        + """
import subprocess, sys

@shared_task(name="chores.spawn")
def spawn():
    words = ["--config", "conf", "--pidfile", "other/w.pid", "-f", "other/w.log"]
    return subprocess.run([sys.executable, "-m", "beatd", *words, "-D"]).returncode
"""
    )
    (here / "other").mkdir()
    assert ended(*WORKER, "-D", cwd=here).returncode == 0

    with client_of(here) as client:
        assert client.send_task("chores.spawn").get(timeout=15) == 0

    eventually(lambda: pid_in(here / "other"))
    assert os.getsid(pid_in(here / "other")) != os.getsid(pid_in(here))


# Quiet, and elsewhere


def test_quiet_it_prints_nothing_of_its_own(here: Path) -> None:
    with beatd(*WORKER, "-q", "-l", "INFO", cwd=here) as running:
        eventually(lambda: "is ready" in log_of(here))

        assert running.stop() == 0
    assert running.output == ""


# The pid file


@pytest.mark.parametrize("option", ["--pidfile", "--logfile"])
def test_a_file_in_no_directory_is_said_with_the_way_out(
    here: Path, option: str
) -> None:
    result = ended(*WORKER, option, "no/where", cwd=here)

    assert result.returncode == 78
    assert "cannot use no/where" in result.stderr
    assert f"{option}: there is no directory no (mkdir -p no makes it)" in result.stderr


def test_a_pid_file_is_there_for_everybody_to_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"

    with pid_file(path):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o644

    assert not path.exists()


def test_a_process_that_was_forked_does_not_hold_the_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    read, write = os.pipe()
    held = pid_file(path)
    held.__enter__()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    os.unlink(path)  # noqa: PTH108 # as its end leaves it, without the lock being given
    held.__exit__(None, None, None)

    with pid_file(path):
        pass
    os.write(write, b"\n")
    os.waitpid(pid, 0)


def test_a_pid_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    with pid_file(path):
        path.unlink()
        with pid_file(path):
            assert path.exists()


def test_the_pid_file_of_another_process_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    first = pid_file(path)
    first.__enter__()
    path.unlink()

    with pid_file(path):
        first.__exit__(None, None, None)
        assert path.exists()


@pytest.mark.parametrize(
    ("text", "links"), [("a diary\n", False), ("", True), ("17\n", True)]
)
def test_what_is_not_a_pid_file_is_refused_and_left_as_it_is(
    tmp_path: Path, text: str, links: bool
) -> None:
    path, kept = tmp_path / "w.pid", tmp_path / "kept"
    kept.write_text(text)
    path.symlink_to(kept) if links else kept.rename(path)

    with (
        pytest.raises(ConfigError, match=r"w\.pid.*\n.*--pidfile: .*left as it is"),
        pid_file(path),
    ):
        pass

    assert path.read_text() == text
    assert path.is_symlink() is links


def test_a_device_is_no_pid_file_and_is_left_as_it_is() -> None:
    before = Path(os.devnull).stat()

    with (
        pytest.raises(ConfigError, match="--pidfile: is not a plain file"),
        pid_file(Path(os.devnull)),
    ):
        pass

    assert os.path.samestat(Path(os.devnull).stat(), before)


def pid_of_none() -> int:
    """Return the number of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_left_over_pid_file_that_somebody_else_locks_blocks_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "w.pid"
    path.write_text(f"{pid_of_none()}\n")
    path.chmod(0o644)
    with path.open() as theirs:  # to read it is enough to lock it
        fcntl.flock(theirs, fcntl.LOCK_EX)

        with pid_file(path):
            assert path.read_text() == f"{os.getpid()}\n"
            with pytest.raises(ConfigError, match=f"process {os.getpid()} runs"):
                pid_file(path).__enter__()

    assert [record.event for record in caplog.records] == ["pidfile.left"]  # type: ignore[attr-defined]  # of EventLog
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_has_locked_a_left_over_pid_file_is_given_time_to_write_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.pid"
    path.write_text(f"{pid_of_none()}\n")
    with path.open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        words = f"{os.getppid():<20}\n".encode()  # nothing is left of what was there
        writing = Timer(0.1, os.pwrite, [other.fileno(), words, 0])
        writing.start()

        with pytest.raises(ConfigError, match=f"process {os.getppid()} runs"):
            pid_file(path).__enter__()
        writing.join()

        assert os.path.samestat(os.fstat(other.fileno()), path.stat())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes process namespaces")
def test_a_pid_file_of_another_container_is_not_left_over(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    with pid_file(path):
        # A number that the other container does not have.
        path.write_text(f"{pid_of_none()}\n")
        code = f"""
from pathlib import Path
from beatd.service.daemon import pid_file
with pid_file(Path({str(path)!r})):
    pass
"""
        apart = ["unshare", "--pid", "--fork", "--mount-proc"]
        if subprocess.run([*apart, "true"], check=False).returncode:
            pytest.skip("this system makes no process namespaces")
        started = subprocess.run(
            [*apart, sys.executable, "-c", code],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

        assert "runs and holds it" in started.stderr
        assert path.exists()


# User, group, umask


@pytest.mark.parametrize(
    ("text", "mask"), [("022", 0o022), ("0o022", 0o022), ("18", 0o022), ("0", 0)]
)
def test_a_umask_is_octal_when_it_begins_with_a_zero(text: str, mask: int) -> None:
    assert umask_of(text) == mask


@pytest.mark.parametrize("text", ["u=rwx", "08", "-1", "01000", ""])
def test_a_umask_that_is_none_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="--umask"):
        umask_of(text)


@pytest.mark.parametrize(("user", "group"), [("no-such-one", None), (None, "nobody!")])
def test_a_user_that_does_not_exist_is_said(
    user: str | None, group: str | None
) -> None:
    with pytest.raises(ConfigError, match="no such user or group"):
        become(user, group)


@pytest.mark.parametrize("odd", ["", "99999999999999999999", "4294967295", "٣", "\0"])
def test_an_odd_user_or_group_is_refused_and_never_taken_for_none(odd: str) -> None:
    for user, group in ((odd, None), (None, odd)):
        with pytest.raises(ConfigError, match="--uid, --gid"):
            become(user, group)


def test_one_may_become_who_one_is() -> None:
    before = os.getuid(), os.getgid(), os.getgroups()

    become(str(os.getuid()), str(os.getgid()))

    assert (os.getuid(), os.getgid(), os.getgroups()) == before


def test_others_than_root_cannot_become_somebody_else() -> None:
    with as_nobody(), pytest.raises(ConfigError, match="only root"):
        become("0" if os.geteuid() else "1", "0")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may become somebody else"
)


def public_python() -> str:
    """Return a Python of this version that everybody may run."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own = (sys.executable, os.path.realpath(sys.executable))
    for path in (*own, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = ["-c", "import sqlite3, ctypes"]
        with suppress(OSError):
            ran = subprocess.run(
                [path, *command], user="nobody", capture_output=True, check=False
            )
            if ran.returncode == 0:
                return path
    pytest.skip(f"there is no {version} that the user nobody may run")


@contextmanager
def public_folder() -> Iterator[Path]:
    """Make a folder where everybody may write, with a config and a copy of beatd.

    The clone and its virtual environment may lie where only root may enter.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        with umask(0o022):
            (folder / "conf.py").write_text(CONFIG)
            (folder / "chores.py").write_text(CHORES)
            copy_package(folder / "packages")
        yield folder


def copy_package(to: Path) -> None:
    """Copy the package and all that it cannot do without."""
    copies = {path: to / path.relative_to(ROOT) for path in ROOT.glob("beatd/**/*.*")}
    for needed in needed_by("beatd"):
        for file in distribution(needed).files or ():
            copies[Path(str(file.locate()))] = to / file
    for source, copy in copies.items():
        if source.suffix != ".pyc" and copy.resolve().is_relative_to(to.resolve()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def needed_by(name: str) -> set[str]:
    """Return the installed distributions that this one needs, extras left out."""
    found: set[str] = set()
    for line in distribution(name).requires or ():
        needed = re.split(r"[^\w.-]", line)[0]
        if "extra ==" not in line:
            with suppress(PackageNotFoundError):  # for other Pythons, other systems
                found |= {needed} | needed_by(needed)
    return found


@needs_root
@pytest.mark.parametrize(
    "how", [("--uid", "nobody"), ("--uid", "nobody", "--gid", "daemon")]
)
def test_root_has_the_worker_run_as_somebody_else(how: Sequence[str]) -> None:
    python = public_python()
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrnam("daemon").gr_gid if "--gid" in how else nobody.pw_gid
    with public_folder() as folder:
        worker = subprocess.Popen(
            [python, "-m", "beatd", *WORKER, "-l", "INFO", *how, "--umask", "027"],
            cwd=folder,
            env=environment(PYTHONPATH=str(folder / "packages")),
        )
        try:
            eventually(lambda: "is ready" in log_of(folder))
            with client_of(folder) as client:
                # A file of results of its own would be root's: the task leaves one.
                client.send_task("chores.who")
            eventually((folder / "who.json").exists)
            uid, gid, groups, mask = json.loads((folder / "who.json").read_text())
            log = (folder / "w.log").stat()
        finally:
            worker.terminate()
            worker.wait(timeout=15)

    assert (uid, gid, mask) == (nobody.pw_uid, group, 0o027)
    assert set(groups) == set(os.getgrouplist("nobody", group))
    assert (log.st_uid, log.st_gid, log.st_mode & 0o777) == (uid, group, 0o640)


@needs_root
def test_root_may_change_the_group_alone(here: Path) -> None:
    group = grp.getgrnam("daemon").gr_gid
    with beatd(*WORKER, "--gid", "daemon", "-l", "INFO", cwd=here):
        eventually(lambda: "is ready" in log_of(here))

        assert (here / "w.log").stat().st_gid == group


def test_a_umask_of_zero_in_the_settings_is_one(here: Path) -> None:
    (here / "conf.py").write_text(CONFIG + "worker_umask = 0\n")
    with beatd(*WORKER, "-l", "INFO", cwd=here):
        eventually(lambda: "is ready" in log_of(here))

        assert (here / "w.log").stat().st_mode & 0o777 == 0o666
