"""Options of tasks: a worker refuses wrong ones at its start, and names the task."""

import math
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import celery
import pytest

from beatd.app import Beatd
from beatd.bounds import LONGEST
from beatd.errors import ConfigError
from beatd.service.wiring.runtime import tasks_of
from beatd.tasks import check_tasks, problems_of
from beatd.tasks.listed import classes_in
from tests.processes import ended

WRONG = [
    *({"time_limit": value} for value in ("5", math.inf, math.nan, 10**400, -1, True)),
    {"time_limit": timedelta(seconds=5)},
    *({"soft_time_limit": value} for value in (LONGEST + 1, [5])),
    *({"rate_limit": value} for value in ([1], "5/d", math.inf, "1e-300/s", True)),
    *({"default_retry_delay": value} for value in ("5", math.inf)),
    *({"max_retries": value} for value in ("3", math.nan, 10**400)),
    *({"retry_backoff": value} for value in (math.inf, "1")),
    {"retry_backoff_max": None},
    *({"retry_kwargs": value} for value in (5, {"countdown": 1e308})),
    {"retry_kwargs": {"max_retries": "3"}},
    *({"throws": value} for value in ((5,), 5, "OSError")),
    {"autoretry_for": (OSError, 5)},
    {"dont_autoretry_for": 5},
    *({"expires": value} for value in (1e308, "soon")),
    {"priority": 10**400},
    {"serializer": 5},
    {"ignore_result": 2},
]


class Expected:
    """A class that exceptions of a project have beside their own."""


def task_with(**options: Any) -> Any:
    @Beatd().task(name="shop.pay", **options)
    def pay() -> None:
        pass

    return pay


@pytest.mark.parametrize("options", WRONG, ids=lambda one: ascii(one)[:40])
def test_a_wrong_option_is_named_with_its_task_and_module(
    options: dict[str, Any],
) -> None:
    task = task_with(**options)

    with pytest.raises(ConfigError) as refused:
        check_tasks([task, task_with()])

    (problem,) = refused.value.problems
    assert problem.startswith(f"task 'shop.pay' (module {__name__}): ")
    assert next(iter(options)) in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"time_limit": 5, "soft_time_limit": 0.5, "rate_limit": "10/m"},
        {"time_limit": None, "rate_limit": 0, "max_retries": None},
        {"max_retries": math.inf, "default_retry_delay": timedelta(minutes=1)},
        {"retry_backoff": True, "retry_backoff_max": 700, "retry_jitter": False},
        {"throws": OSError, "autoretry_for": [OSError], "dont_autoretry_for": ()},
        {"retry_kwargs": {"max_retries": 5, "countdown": 2}},
        {"queue": "slow", "priority": 3, "expires": 60, "serializer": "json"},
        {"rate_limit": False, "ignore_result": 1},
        {"max_retries": sys.maxsize, "default_retry_delay": None},
        {"max_retries": 3.0, "retry_kwargs": None},
        {"throws": (Expected, (OSError, (KeyError,)))},
        {"throws": None, "autoretry_for": (OSError, (KeyError,))},
    ],
    ids=lambda one: ascii(one)[:40],
)
def test_what_celery_takes_is_taken(options: dict[str, Any]) -> None:
    assert problems_of(task_with(**options)) == []


def test_the_options_of_celery_s_tasks_are_checked_alike() -> None:
    app = celery.Celery("shop", set_as_current=False)

    def pay() -> None:
        pass

    app.task(name="shop.pay", time_limit="5", shared=False)(pay)
    app.task(name="shop.ship", shared=False)(pay)

    with pytest.raises(ConfigError) as refused:
        check_tasks(tasks_of(app).values())

    (problem,) = refused.value.problems
    assert problem.startswith(f"task 'shop.pay' (module {__name__}): time_limit: ")


PROJECT = """
from beatd import Beatd
app = Beatd("proj")

@app.task(time_limit="5")
def pay(): pass

@app.task(rate_limit=[1], throws=(5,))
def ship(): pass
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("worker", "-A", "proj", "-P", "solo"), 78),
        (("check", "-A", "proj"), 1),
        (("check", "-A", "proj", "--import"), 1),
    ],
)
def test_a_worker_refuses_them_and_check_finds_them(
    tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    (tmp_path / "proj.py").write_text(PROJECT)

    run = ended(*words, cwd=tmp_path)

    said = run.stdout + run.stderr
    assert run.returncode == status
    assert "task 'proj.pay' (module proj): time_limit: expected a number of" in said
    assert "task 'proj.ship' (module proj): rate_limit: expected a rate such" in said
    assert "task 'proj.ship' (module proj): throws: expected classes of ex" in said
    assert "Traceback" not in said


def test_check_finds_them_in_the_modules_that_a_config_names(tmp_path: Path) -> None:
    (tmp_path / "celeryconfig.py").write_text("imports = ['shop_tasks']\n")
    (tmp_path / "shop_tasks.py").write_text(
        "from beatd import shared_task\n\n"
        "@shared_task(time_limit=float('inf'))\ndef pay(): pass\n"
    )

    run = ended("check", "--import", cwd=tmp_path)

    assert run.returncode == 1
    assert "task 'shop_tasks.pay' (module shop_tasks): time_limit: " in run.stdout


def test_a_number_for_ignore_result_is_sent_as_a_flag() -> None:
    assert task_with(ignore_result=1).sent_options() == {"ignore_result": True}
    assert task_with(ignore_result=0).sent_options() == {"ignore_result": False}


def test_lists_of_classes_may_hold_lists_and_classes_of_a_project() -> None:
    listed = (Expected, [OSError, (KeyError,)])

    assert classes_in(listed) == (Expected, OSError, KeyError)
