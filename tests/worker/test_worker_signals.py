"""What a worker tells of itself, and in which of its processes."""

import signal
from pathlib import Path

import pytest

from tests.processes import beatd

PROJECT = """
import os

from beatd import Beatd, signals

app = Beatd("proj", broker="sqlite:///proj.db")


def say(signal, sender, **_):
    name = getattr(sender, "hostname", None)
    # One write, so that what two processes say does not mix.
    os.write(2, f"told {signal.name} {os.getpid()} {name}\\n".encode())
    raise ValueError("whatever a receiver raises")


for one in ("worker_init", "worker_process_init", "worker_ready", "worker_shutdown"):
    getattr(signals, one).connect(say)
"""


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_tells_of_its_beginning_and_of_its_end(
    tmp_path: Path, pool: str
) -> None:
    (tmp_path / "proj.py").write_text(PROJECT)
    options = ("-A", "proj", "-P", pool, "-c", "2", "-n", "w1@here")
    with beatd("worker", *options, cwd=tmp_path) as worker:
        worker.until("told worker_ready")
        worker.until("told worker_process_init", times=2 if pool == "prefork" else 1)
        assert worker.stop(signal.SIGTERM) == 0

    lines = [line.split() for line in worker.output.splitlines()]
    told = [line[1:] for line in lines if line[:1] == ["told"]]
    main = str(worker.process.pid)
    assert [one for one in told if one[0] != "worker_process_init"] == [
        ["worker_init", main, "w1@here"],
        ["worker_ready", main, "w1@here"],
        ["worker_shutdown", main, "w1@here"],
    ]
    begun = {pid for name, pid, _ in told if name == "worker_process_init"}
    assert len(begun) == (2 if pool == "prefork" else 1)
    assert (main in begun) == (pool == "solo")


MORE = """
import os

from beatd import Beatd, signals

app = Beatd("proj", broker="sqlite:///proj.db", beat_schedule={})


def say(signal, sender, **said):
    said = {name: said[name] for name in sorted(said)}
    of = getattr(sender, "namespace", sender)
    os.write(2, f"told {signal.name} {of} {said}\\n".encode())


for one in ("worker_shutting_down", "worker_process_shutdown", "beat_init",
            "beat_embedded_init", "worker_process_init"):
    getattr(signals, one).connect(say)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_tells_how_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "proj.py").write_text(MORE)
    options = ("-A", "proj", "-c", "2", "-n", "w1@here", "-B")
    with beatd("worker", *options, cwd=tmp_path) as worker:
        worker.until("told beat_init default")
        worker.until("told beat_embedded_init default")
        worker.until("told worker_process_init", times=2)
        assert worker.stop(number) == 0

    how = "Warm" if number == signal.SIGTERM else "Cold"
    told = {"exitcode": 0, "how": how, "sig": number.name}
    assert f"told worker_shutting_down w1@here {told}" in worker.output
    ended = worker.output.count("told worker_process_shutdown None {'exitcode': 0,")
    assert ended == (2 if how == "Warm" else 0)
