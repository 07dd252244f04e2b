"""`beatd check --import` finds the tasks that the app's own worker would have."""

from pathlib import Path

import pytest

from tests.processes import ended
from tests.switch.files import write

SCHEDULE = """
    app.conf.beat_schedule = {
        "found": {"task": "%s.tasks.found", "schedule": 60},
        "lost": {"task": "%s.tasks.lost", "schedule": 60},
    }
    """


def project(kind: str, name: str) -> dict[str, str]:
    """Return an app whose tasks are found by autodiscovery; one has no task."""
    first = "from celery import Celery, shared_task\n"
    if kind == "beatd":
        first = "from beatd import Beatd as Celery, shared_task\n"
    app = (
        f"{first}app = Celery('{name}', broker='redis://h/0', backend='redis://h/0')\n"
    )
    return {
        f"{name}/__init__.py": "",
        f"{name}/celery.py": app
        + f"app.autodiscover_tasks(['{name}'])"
        + (SCHEDULE % (name, name)).replace("\n    ", "\n"),
        f"{name}/tasks.py": f"{first}@shared_task\ndef found(): pass\n",
    }


@pytest.mark.parametrize("kind", ["celery", "beatd"])
def test_tasks_that_the_app_discovers_are_found(tmp_path: Path, kind: str) -> None:
    write(tmp_path, project(kind, "shop"))

    answer = ended("check", "-A", "shop", "--import", cwd=tmp_path)

    assert "entry 'found'" not in answer.stdout
    assert "error: entry 'lost': no task named 'shop.tasks.lost'" in answer.stdout
    assert answer.returncode == 1


INCLUDING = {
    "celery": """
        from celery import Celery
        notify = Celery("notify", broker="redis://h", set_as_current=False)
        notify.conf.update(include=["{name}.tasks"], beat_schedule={schedule})
        """,
    "config": """
        include = ["{name}.tasks"]
        beat_schedule = {schedule}
        """,
}


@pytest.mark.parametrize("kind", INCLUDING)
def test_modules_that_are_included_are_found(tmp_path: Path, kind: str) -> None:
    name = f"included_by_{kind}"
    tasks = ("found", "lost")
    schedule = {one: {"task": f"{name}.tasks.{one}", "schedule": 60} for one in tasks}
    first = "celery" if kind == "celery" else "beatd"
    write(
        tmp_path,
        {
            f"{name}/__init__.py": "",
            f"{name}/run.py": INCLUDING[kind].format(name=name, schedule=schedule),
            f"{name}/tasks.py": f"""
                from {first} import shared_task
                @shared_task
                def found(): pass
                """,
        },
    )
    option = "--config" if kind == "config" else "-A"
    word = f"{name}.run" if kind == "config" else f"{name}.run.notify"

    answer = ended("check", option, word, "--import", cwd=tmp_path)

    assert "entry 'found'" not in answer.stdout
    assert f"error: entry 'lost': no task named '{name}.tasks.lost'" in answer.stdout
    assert answer.returncode == 1


def test_tasks_of_celery_beside_an_app_of_ours_do_not_count(tmp_path: Path) -> None:
    files = project("beatd", "mixed")
    files["mixed/tasks.py"] += (
        "from celery import shared_task\n@shared_task\ndef lost(): pass\n"
    )
    write(tmp_path, files)

    answer = ended("check", "-A", "mixed", "--import", cwd=tmp_path)

    assert answer.stdout.splitlines()[2:] == [
        "error: entry 'lost': no task named 'mixed.tasks.lost' was imported",
        "    it is a task of Celery's: make it with shared_task of beatd",
    ]
    assert answer.returncode == 1


def test_a_helper_that_raises_is_shown_at_its_own_line(tmp_path: Path) -> None:
    files = project("celery", "deep")
    files["deep/tasks.py"] += "from deep import helper\n"
    files["deep/helper.py"] = "\n\nvalue = {}['gone']\n"
    write(tmp_path, files)

    answer = ended("check", "-A", "deep", "--import", cwd=tmp_path)

    assert "deep/helper.py:3: error: this line raised KeyError: 'gone'" in answer.stdout
    assert answer.returncode == 78
