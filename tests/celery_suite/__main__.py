"""`python -m tests.celery_suite`: Celery's integration tests, by its worker and ours.

The tests are those of Celery's own source distribution. Each worker runs them in two
parts at the same time, with a server for each, and what fails is tried once more, in
processes of its own. At the end stands a table of the tests that do not pass with every
worker. The exit status is 1 if a worker of Celery's passes one that beatd's of the same
pool does not, and `internals` has no reason for it.

    python -m tests.celery_suite [--only beatd-prefork] [-- -k chord]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

import celery

from tests.celery_suite.internals import EXPECTED, LEFT_OUT
from tests.processes import ROOT, environment
from tests.servers import Server

PLACE = ROOT / "build" / "celery-suite"
TESTS = "t/integration"

_APP = "-A tests.celery_suite.suite_app"
_QUIET = "--without-mingle --without-gossip --without-heartbeat"
_ONE = "-c 1 -l INFO"  # one task at a time, as the tests' own worker has it
_COMMANDS = {
    "celery-prefork": f"celery {_APP} worker -P prefork {_ONE} {_QUIET}",
    "celery-threads": f"celery {_APP} worker -P threads {_ONE} {_QUIET}",
    "beatd-prefork": f"beatd worker {_APP} -P prefork {_ONE}",
    "beatd-threads": f"beatd worker {_APP} -P threads {_ONE}",
}
_CANVAS = f"{TESTS}/test_canvas.py"
_LEFT_OUT = [f"{TESTS}/{name}" for name in LEFT_OUT]
_PARTS = {
    "canvas": [_CANVAS],  # more than half of the tests
    "others": [TESTS, *(f"--ignore={one}" for one in (_CANVAS, *_LEFT_OUT))],
}
_FIXTURE = "\nfrom tests.celery_suite.plugin import celery_session_worker  # noqa\n"

Ends: TypeAlias = dict[str, str]
"""How each test ended: passed, again (passed at the second try), failed, skipped."""


@dataclass(frozen=True, slots=True)
class Session:
    """One worker and one part of the tests."""

    worker: str
    part: str
    sources: Path

    def run(self, options: Sequence[str]) -> Ends:
        """Run the tests, and once more, by themselves, those that fail."""
        ends = self._once([*_PARTS[self.part], *options], "first")
        failed = [test for test, end in ends.items() if end == "failed"]
        second = self._once(failed, "second") if failed else {}
        return ends | {t: "again" for t in failed if second.get(t) == "passed"}

    def _once(self, words: Sequence[str], which: str) -> Ends:
        out = PLACE / self.worker / self.part / which
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        report, log = out / "tests.xml", out / "tests.log"
        plugins = ["-p", "celery.contrib.pytest", "-p", "tests.celery_suite.plugin"]
        options = ["-v", "-p", "no:cacheprovider", f"--junitxml={report}", *plugins]
        with Server() as server, log.open("wb") as output:
            print(f"{self.worker}, {self.part}, {which} time: {log}", flush=True)
            subprocess.run(
                [sys.executable, "-m", "pytest", *options, *words],
                cwd=self.sources,
                stdout=output,
                stderr=output,
                check=False,
                env=self._environment(server, out / "worker.log"),
            )
        return ends_of(report)

    def _environment(self, server: Server, log: Path) -> dict[str, str]:
        commands = str(Path(sys.executable).parent)
        return environment(
            PATH=os.pathsep.join([commands, os.environ["PATH"]]),
            PYTHONPATH=os.pathsep.join([str(self.sources), str(ROOT)]),
            TEST_BROKER=server.url(),
            TEST_BACKEND=server.url(),
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(server.port),
            SUITE_WORKER=_COMMANDS[self.worker],
            SUITE_LOG=str(log),
        )


def ends_of(report: Path) -> Ends:
    """Return how the tests in pytest's report ended, by the words that name them."""
    ends = {}
    for case in ElementTree.parse(report).iter("testcase"):
        # `t.integration.test_tasks.test_retries`: a module, and a class in it perhaps
        _, _, inner = case.get("classname", "").partition(f"{TESTS.replace('/', '.')}.")
        module, *classes = inner.split(".")
        parts = [f"{TESTS}/{module}.py", *classes, case.get("name", "")]
        found = {child.tag for child in case}
        failed = bool(found & {"failure", "error"})
        skipped = "skipped" in found
        end = "failed" if failed else "skipped" if skipped else "passed"
        ends["::".join(parts)] = end
    return ends


def unpacked() -> Path:
    """Fetch the sources of the Celery that is installed; return where its tests lie."""
    version = celery.__version__
    kept = PLACE / "sources"
    archive = kept / f"celery-{version}.tar.gz"
    if not archive.exists():
        words = ["download", "-q", "--no-deps", "--no-binary=celery", "-d", str(kept)]
        pip = [sys.executable, "-m", "pip", *words, f"celery=={version}"]
        subprocess.run(pip, check=True)
    top = kept / f"celery-{version}"
    shutil.rmtree(top, ignore_errors=True)
    with tarfile.open(archive) as file:
        # Without its package: what is tested is what is installed.
        parts = (["t"], ["pyproject.toml"])
        wanted = [m for m in file.getmembers() if m.name.split("/")[1:2] in parts]
        file.extractall(kept, wanted, filter="data")
    with (top / TESTS / "conftest.py").open("a") as conftest:
        conftest.write(_FIXTURE)
    return top


def table(all_ends: Mapping[str, Ends]) -> Iterable[str]:
    """Yield the lines of a table of all tests that do not pass with every worker."""
    yield f"| test | {' | '.join(all_ends)} |"
    yield "|---" * (len(all_ends) + 1) + "|"
    tests = dict.fromkeys(test for ends in all_ends.values() for test in ends)
    for test in tests:
        row = [ends.get(test, "-") for ends in all_ends.values()]
        if {*row} != {"passed"}:
            yield f"| {test.removeprefix(f'{TESTS}/')} | {' | '.join(row)} |"
    for end in ("passed", "again", "failed", "skipped"):
        counts = [[*ends.values()].count(end) for ends in all_ends.values()]
        yield f"| {end} | {' | '.join(map(str, counts))} |"


def worse(all_ends: Mapping[str, Ends]) -> Iterable[str]:
    """Yield what a worker of Celery's passes and beatd's of that pool does not."""
    for pool in ("prefork", "threads"):
        theirs = all_ends.get(f"celery-{pool}", {})
        ours = all_ends.get(f"beatd-{pool}", {})
        for test, end in ours.items():
            passes = theirs.get(test) in ("passed", "again")
            reason = EXPECTED.get(test.removeprefix(f"{TESTS}/"))
            if end == "failed" and passes:
                yield f"{pool}: {test}" + (f": {reason}" if reason else " (!)")


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", action="append", choices=[*_COMMANDS])
    options.add_argument("options", nargs="*", help="for pytest, after --")
    given = options.parse_args(arguments)
    top = unpacked()
    workers = given.only or [*_COMMANDS]
    sessions = [Session(worker, part, top) for worker in workers for part in _PARTS]
    with ThreadPoolExecutor(len(sessions)) as pool:
        found = [*pool.map(lambda session: session.run(given.options), sessions)]
    ends: dict[str, Ends] = {worker: {} for worker in workers}
    for session, tests in zip(sessions, found, strict=True):
        ends[session.worker] |= tests
    print(f"Celery {celery.__version__}", *table(ends), sep="\n")
    differences = [*worse(ends)]
    print("Celery passes, beatd does not:", *(differences or ["none"]), sep="\n  ")
    return any(line.endswith("(!)") for line in differences)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
