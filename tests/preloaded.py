"""Programs of Python's that tests run often: each run is a fork of one process.

That process has imported what they import, which takes Celery's command the most of a
second. A run has its own environment, folder and output, and no module of another's.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from tests.processes import ROOT, environment
from tests.servers import PATIENCE


class Preloaded:
    """A process that has imported these modules, and runs others in forks of it."""

    def __init__(self, *imports: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", *imports],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "Preloaded":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(
        self, module: str, *words: str, cwd: Path, env: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python -m module` with these words to its end."""
        assert self._process.stdin
        assert self._process.stdout
        with TemporaryDirectory() as folder:
            output, errors = Path(folder, "output"), Path(folder, "errors")
            request = [module, words, str(cwd), dict(env), str(output), str(errors)]
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            texts = output.read_text(), errors.read_text()
        return subprocess.CompletedProcess([module, *words], status, *texts)


def main() -> None:
    """Run what each line of the input asks for; answer with its exit status."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(*json.loads(line))
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


def _run(
    module: str, words: list[str], cwd: str, env: dict[str, str], *outputs: Any
) -> NoReturn:
    status: Any = 1
    try:
        signal.alarm(round(PATIENCE))
        for number, path in enumerate([os.devnull, *outputs]):
            mode = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
            os.dup2(os.open(path, mode, 0o600), number)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        sys.argv = [module, *words]
        sys.path[0] = cwd
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        for file in (sys.stdout, sys.stderr):
            file.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
