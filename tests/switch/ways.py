"""The ways to run a project of Celery: by Celery, beside it, instead of it, without it.

celery   Celery's beat, Celery's worker
beat     our scheduler, Celery's worker
both     our scheduler, our worker; the project is one of Celery's
swapped  the same with its import lines changed, where no Celery can be imported
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import redis

from tests.processes import ROOT, environment, module
from tests.servers import PATIENCE, Server

WAYS = ("celery", "beat", "both", "swapped")

_SWAPS = [
    (r"\bfrom celery import (.*)\bCelery\b", r"from beatd import \1Beatd as Celery"),
    (r"\bfrom celery import ", "from beatd import "),
    (r"\bfrom celery\.result import ", "from beatd import "),
    (r"\bfrom celery\.schedules import ", "from beatd.schedules import "),
    (
        r"\bfrom celery\.(exceptions|signals|utils\.log) import ",
        r"from beatd.\1 import ",
    ),
    (r"\bfrom kombu import ", "from beatd import "),
]
"""The import lines of README.md and docs/python-api.md."""

_BARRED = 'raise ImportError("it is not to be imported: this project left Celery out")'


def swapped(text: str) -> str:
    """Return a module with its import lines changed, and nothing else."""
    for pattern, replacement in _SWAPS:
        text = re.sub(pattern, replacement, text)
    return text


@dataclass(frozen=True)
class Project:
    """A project on disk, in one of the ways."""

    folder: Path
    way: str
    server: Server
    env: Mapping[str, str]

    @classmethod
    def written(
        cls,
        folder: Path,
        files: Mapping[str, str],
        way: str,
        server: Server,
        **env: str,
    ) -> "Project":
        """Write the project's files."""
        texts = dict(files)
        if way == "swapped":
            texts = {name: swapped(text) for name, text in files.items()}
            texts |= {f"barred/{name}.py": _BARRED for name in ("celery", "kombu")}
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip())
        paths = [str(folder / "barred"), str(folder), str(ROOT)]
        urls = {"BROKER": server.url(0), "BACKEND": server.url(1)}
        python_path = os.pathsep.join(paths)
        return cls(folder, way, server, {"PYTHONPATH": python_path, **urls, **env})

    @contextmanager
    def running(self, app: str, *queues: str) -> Iterator[None]:
        """Run scheduler and worker of this app for the block's time."""
        names = ("-Q", ",".join(queues)) if queues else ()
        beat, worker = {
            "celery": ("celery", "celery"),
            "beat": ("beatd", "celery"),
            "both": ("beatd", "beatd"),
            "swapped": ("beatd", "beatd"),
        }[self.way]
        schedule = ("beat",) if beat == "celery" else ()
        with ExitStack() as stack:
            run = stack.enter_context(
                module(
                    worker, "-A", app, "worker", "-c", "2", "-l", "info", *names,
                    cwd=self.folder, **self.env,
                )
            )  # fmt: skip
            run.until(" ready")
            stack.enter_context(
                module(
                    beat, "-A", app, *schedule, "-l", "info",
                    cwd=self.folder, **self.env,
                )
            )  # fmt: skip
            yield

    def told(self, script: str) -> str:
        """Run a script of the project; return what it prints."""
        ran = subprocess.run(
            [sys.executable, script],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment(**self.env),
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @contextmanager
    def notes(self) -> Iterator["redis.Redis"]:
        """Lend a connection to where the project's tasks leave notes."""
        with redis.Redis(port=self.server.port, db=2, decode_responses=True) as client:
            yield client
