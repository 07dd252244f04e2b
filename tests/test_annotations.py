"""What the settings change in tasks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beatd.app import Beatd
from beatd.app.annotations import Annotations
from beatd.config import settings
from beatd.config.settings import Settings
from beatd.errors import ConfigError
from beatd.tasks import Task
from tests.worker.bench import Bench


def annotated(annotations: Any, name: str = "proj.add", **options: Any) -> Any:
    """Return a task as an app with these annotations has it."""
    app = Beatd("proj", set_as_current=False, task_annotations=annotations)
    app.register_task(Task(lambda x, y: x + y, app=lambda: app, name=name, **options))
    return app.tasks[name]


class Picky:
    """Changes the tasks of one package only."""

    def annotate(self, task: Task[Any, Any]) -> dict[str, Any] | None:
        return {"rate_limit": "1/s"} if task.name.startswith("proj.") else None


class Generous:
    def annotate_any(self) -> dict[str, Any]:
        return {"rate_limit": "9/s"}


def test_a_tasks_attributes_are_those_of_its_name() -> None:
    annotations = {"proj.add": {"rate_limit": "10/s", "max_retries": 7}}

    assert annotated(annotations).rate_limit == "10/s"
    assert annotated(annotations).max_retries == 7
    assert annotated(annotations, "proj.sub").rate_limit is None


def test_they_go_before_what_the_task_says_of_itself() -> None:
    task = annotated({"proj.add": {"acks_late": False}}, acks_late=True)

    assert task.acks_late is False


def test_an_asterisk_is_for_all_tasks_and_goes_before_the_name() -> None:
    table = {"proj.add": {"time_limit": 1, "priority": 3}, "*": {"time_limit": 2}}

    task = annotated(table)

    assert (task.time_limit, task.priority) == (2, 3)
    assert annotated(table, "other").time_limit == 2


@pytest.mark.parametrize(
    ("annotations", "rate"),
    [
        (Picky(), "1/s"),
        ([Picky(), {"proj.add": {"rate_limit": "5/s"}}], "1/s"),
        ([{"proj.add": {"rate_limit": "5/s"}}, Picky()], "5/s"),
        ((Picky(), Generous()), "9/s"),
        (f"{__name__}:Picky", "1/s"),
        ([f"{__name__}.Picky"], "1/s"),
    ],
    ids=["object", "first", "first table", "any wins", "place", "place with a dot"],
)
def test_the_first_of_a_list_that_has_an_answer_decides(
    annotations: Any, rate: str
) -> None:
    assert annotated(annotations).rate_limit == rate


def test_a_function_becomes_the_tasks_method() -> None:
    failed: list[tuple[Any, ...]] = []

    def on_failure(self: Any, exc: BaseException, task_id: str, *_: Any) -> None:
        failed.append((self.name, repr(exc), task_id))

    bench = Bench(task_annotations={"*": {"on_failure": on_failure}})

    @bench.app.task(name="proj.fail")
    def fail() -> None:
        raise ValueError("no")

    sent = fail.delay()
    bench.run()

    assert failed == [("proj.fail", "ValueError('no')", sent.id)]


def test_a_method_given_as_an_option_gets_the_task_too() -> None:
    app = Beatd("proj", set_as_current=False)

    told: list[str] = []

    @app.task(on_success=lambda self, *_: told.append(self.name))
    def work() -> None: ...

    work.on_success(None, "id", (), {})
    assert told == [work.name]


def test_what_an_at_names_is_put_around_the_present_one() -> None:
    def around(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args: (self.name, run(self, *args))

    for name in ("@run", "@__call__"):
        task = annotated({"proj.add": {name: around}})
        assert task(2, 3) == ("proj.add", 5)


def test_the_options_of_a_call_are_the_changed_ones() -> None:
    bench = Bench(task_annotations={"proj.add": {"queue": "slow", "priority": 6}})
    add = bench.app.task(name="proj.add")(lambda: None)

    add.delay()

    bench.broker.join("reader", 1000)
    (delivery,) = bench.broker.take("reader", ["slow"], 9, 1)
    assert b'"priority": 6' in delivery.message


def test_a_worker_goes_by_them() -> None:
    table = {"proj.once": {"acks_late": False}, "proj.slow": {"rate_limit": "1/h"}}
    bench = Bench(task_annotations=table)
    runs: list[str] = []
    bench.app.task(name="proj.once")(lambda: runs.append("once"))
    bench.app.task(name="proj.slow")(lambda: runs.append("slow"))

    bench.app.send_task("proj.once")
    bench.app.send_task("proj.slow")
    bench.app.send_task("proj.slow")
    bench.run()

    assert sorted(runs) == ["once", "slow"]
    assert bench.app.tasks["proj.once"].acks_late is False


def test_a_task_is_changed_once() -> None:
    def around(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args: [run(self, *args)]

    task = annotated({"*": {"@run": around}})
    task.app.tasks["proj.add"].app.adopt(task)

    assert task(1, 1) == [2]


class Broken:
    def annotate(self, task: Task[Any, Any]) -> dict[str, Any]:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        (Broken(), r"Broken.* raised ValueError\('no'\)"),
        ("nowhere:Class", "'nowhere:Class': no module named 'nowhere'"),
        (f"{__name__}:Nobody", "AttributeError"),
    ],
    ids=["it raises", "no module", "no class"],
)
def test_what_cannot_be_used_is_said_when_tasks_are_imported(
    annotations: Any, words: str
) -> None:
    app = Beatd("proj", set_as_current=False, task_annotations=annotations)
    app.task(name="proj.add")(lambda: None)

    with pytest.raises(ConfigError, match=words):
        app.import_tasks()


@pytest.mark.parametrize("wrong", [3, {"proj.add": "10/s"}, [Picky(), 3]])
def test_what_no_annotation_can_be_is_a_problem_of_the_config(wrong: Any) -> None:
    (problem,) = settings.read({"task_annotations": wrong}).problems

    assert "expected dicts of attributes by task name" in str(problem)


def test_without_annotations_nothing_is_changed() -> None:
    assert list(Annotations(Settings().task_annotations).of(annotated(None))) == []


def test_a_place_is_imported_when_there_are_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "changes", raising=False)
    text = "class All:\n    def annotate_any(self):\n        return {'time_limit': 5}\n"
    (tmp_path / "changes.py").write_text(text)

    assert annotated("changes:All").time_limit == 5
