"""Receivers of the signals of Celery's beat, in projects as they are."""

from pathlib import Path

from tests.processes import beatd
from tests.servers import Server
from tests.switch.files import write

PROJECT = """
    import os

    from celery import Celery, signals

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
    app = Celery("proj", broker=os.environ["BROKER"])


    @signals.beat_init.connect
    @signals.beat_embedded_init.connect
    def told(signal, sender, **_):
        print(f"told {signal.name} {sender.app.main} {hash(sender) != 0}", flush=True)
"""

FILES = {
    "proj.py": PROJECT,
    "site_settings.py": """
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db"}}
        SECRET_KEY = "none"
    """,
}


def test_beat_init_reaches_a_project_of_django(server: Server, tmp_path: Path) -> None:
    write(tmp_path, FILES)

    with beatd("-A", "proj", cwd=tmp_path, BROKER=server.url()) as scheduler:
        scheduler.until("told beat_init proj True")
        scheduler.stop()

    assert "Traceback" not in scheduler.output


def test_both_signals_reach_it_in_a_worker(server: Server, tmp_path: Path) -> None:
    write(tmp_path, FILES)

    with beatd(
        *("worker", "-B", "-P", "solo", "-A", "proj"),
        cwd=tmp_path,
        BROKER=server.url(),
    ) as worker:
        worker.until("told beat_embedded_init proj True")
        worker.until("told beat_init proj True")
        worker.stop()

    assert "Traceback" not in worker.output
