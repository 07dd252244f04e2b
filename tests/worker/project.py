"""A project on disk, a `beatd worker` on it in a process of its own, and its client."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from beatd.app import Beatd
from tests.processes import started
from tests.servers import PATIENCE, eventually

NOTHING: Mapping[str, str] = {}

TASKS = '''\
import asyncio
import os
import signal
import time
from pathlib import Path

from beatd import Beatd, SoftTimeLimitExceeded

app = Beatd(
    "proj",
    broker={broker!r},
    backend={backend!r},
    timezone="Asia/Kathmandu",
    worker_lease_timeout=3,
)
{settings}
HERE = Path(__file__).parent


@app.task
def add(x, y):
    return x + y


@app.task
async def add_later(x, y):
    await asyncio.sleep(0.01)
    return x + y


@app.task(bind=True, max_retries=3)
def flaky(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.05, exc=OSError("not yet"))
    return self.request.retries


@app.task
def where():
    return [os.getpid(), time.strftime("%z")]


@app.task
def mark(name, seconds=0, until=None):
    """Leave a line for each run, at its beginning; end when a file is there."""
    with (HERE / name).open("a") as file:
        print(os.getpid(), file=file)
    time.sleep(seconds)
    while until and not (HERE / until).exists():
        time.sleep(0.01)
    return name


@app.task
def meet(name, number):
    """Wait until so many of this name run at the same time; give where it ran."""
    with (HERE / name).open("a") as file:
        print(os.getpid(), file=file)
    while len((HERE / name).read_text().splitlines()) < number:
        time.sleep(0.01)
    return os.getpid()


@app.task(bind=True)
def echo(self, *args, **kwargs):
    """Return what the run knows of its call."""
    request = self.request
    return {{
        "args": args,
        "kwargs": kwargs,
        "id": request.id,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "eta": request.eta,
        "expires": request.expires,
        "colour": request.get("colour"),
        "timelimit": request.timelimit,
        "retries": request.retries,
        "root_id": request.root_id,
    }}


@app.task
def fail(text):
    raise ValueError(text)


@app.task(soft_time_limit=0.2, time_limit=30)
def patient():
    try:
        for _ in range(300):  # a thread is only interrupted between two sleeps
            time.sleep(0.1)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task(soft_time_limit=0.2, time_limit=30)
async def patient_later():
    try:
        await asyncio.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task(time_limit=0.3)
async def late():
    await asyncio.sleep(30)


@app.task
def parent(x):
    return add.delay(x, x).id


@app.task
def die_once(name):
    """Kill the process that runs it, the first time."""
    if not (HERE / name).exists():
        (HERE / name).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@app.task(
    bind=True, retry_on_worker_lost=True, default_retry_delay=0.1, max_retries=2
)
def die_until(self, retries):
    """Kill the process that runs it, unless it was retried so often."""
    if self.request.retries < retries:
        os._exit(7)
    return self.request.retries


@app.task
def die():
    os._exit(7)
'''


class Project:
    """The project `proj` in a folder; `app` sends to it from this process."""

    def __init__(self, folder: Path, broker: str, backend: str) -> None:
        self.folder = folder
        self._where = {"broker": broker, "backend": backend}
        self.configure()
        self.app = Beatd("client", broker=broker, backend=backend, set_as_current=False)

    def configure(self, **settings: object) -> None:
        """Have workers started from now on go by these settings."""
        more = f"app.conf.update({settings!r})"
        code = TASKS.format(settings=more, **self._where)
        (self.folder / "proj.py").write_text(code)

    @contextmanager
    def worker(self, *options: str, **env: str) -> Iterator["WorkerProcess"]:
        """Run a worker for the block's time; it is stopped warm at its end."""
        with WorkerProcess(self.folder, options, env) as process:
            yield process

    def release(self, name: str) -> None:
        """Let every `mark` end that waits for this file."""
        (self.folder / name).touch()

    def runs(self, name: str) -> int:
        """Return how often `mark` began with this name."""
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0


class WorkerProcess:
    """A `beatd worker` that runs, and is ready, for a block's time."""

    def __init__(
        self, folder: Path, options: tuple[str, ...], env: Mapping[str, str] = NOTHING
    ) -> None:
        number = len(list(folder.glob("worker-*.log")))
        self.log = folder / f"worker-{number}.log"
        with self.log.open("wb") as log:
            self._process = started(
                *("beatd", "worker", "-A", "proj"),
                *("-l", "info", "-n", f"w{number}@%h", *options),
                cwd=folder,
                output=log,
                leads_group=False,
                env=env,
            )

    def __enter__(self) -> "WorkerProcess":
        try:
            self.await_line("is ready")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def await_line(self, words: str, times: int = 1) -> None:
        """Wait until the log has these words so many times."""

        def found() -> bool:
            return self.log.read_text().count(words) >= times

        eventually(
            lambda: found() or self._process.poll() is not None,
            f"{words!r} in the worker's log",
        )
        assert found(), self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and give the exit status."""
        return self._process.wait(timeout=PATIENCE)

    def end(self) -> None:
        """Stop it if it runs; by force if it does not end."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
