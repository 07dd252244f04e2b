"""What a Celery app has beside tasks and settings: called, or said to have no effect."""
# ruff: noqa: E501  (tables of text have one case in a line)

from pathlib import Path

import pytest

from beatd import Beatd
from beatd.celery_apps.out_of_reach import out_of_reach
from beatd.config.apps import of_app
from beatd.config.loading import Wanted, load
from beatd.errors import ConfigError
from tests.processes import beatd, ended
from tests.servers import Server
from tests.switch.files import write

pytestmark = pytest.mark.usefixtures("afresh")

PROJECT = """
    import click
    from celery import Celery, Task, bootsteps, signals
    from celery.worker.control import control_command
    from celery.worker.request import Request
    from kombu import Exchange, Queue, binding
    from kombu.common import Broadcast

    app = Celery("{name}", broker="{broker}", backend="{broker}", set_as_current=False)

    class Logging(bootsteps.StartStopStep):
        pass

    class MyRequest(Request):
        pass

    class Batches(Task):
        Strategy = "{name}:strategy"

    app.conf.task_queues = [
        Queue("celery"),
        Broadcast("caches"),
        Queue("all", Exchange("news", "fanout")),
        Queue("some", [binding(Exchange("alarms", "fanout"))]),
    ]
    app.steps["worker"].add(Logging)
    app.user_options["worker"].add(click.Option(["--tenant"]))

    @control_command()
    def drain_tenant(state):
        pass

    @app.task(base=Batches)
    def many():
        pass

    @app.task(Request=MyRequest)
    def asked():
        pass

    @app.task
    def plain():
        pass

    @signals.celeryd_after_setup.connect(sender="celery@host")
    def queues(sender, instance, **kwargs):
        pass

    @signals.heartbeat_sent.connect
    def beating(**kwargs):
        pass

    @signals.celeryd_init.connect
    def configure(sender, instance, conf, **kwargs):
        conf.worker_concurrency = 1
        conf.task_default_queue = sender.partition("@")[0]
        assert instance.hostname == sender
    """
SAID = [
    "bootsteps are not run, and what they would set up is missing: {name}:Logging; a receiver of worker_init can do what a step does when it is made",
    "options of the command line that the app adds are not known to beatd: --tenant",
    "remote-control commands of the app's own are not answered: drain_tenant",
    "the signal celeryd_after_setup is never sent: nothing calls {name}:queues; name a worker's queues with -Q or worker_direct",
    "the signal heartbeat_sent is never sent: nothing calls {name}:beating; worker_ready and a thread of your own can tell that it lives",
    "the Strategy of these tasks is not called: each message is one run: {name}.many; leave the queue of these tasks to a worker of Celery",
    "what these exchanges fan out reaches no worker of beatd's: alarms, caches, news; let a worker of Celery take from their queues",
]


def test_what_is_out_of_reach_is_said_by_check_and_by_a_worker(
    tmp_path: Path, server: Server
) -> None:
    write(tmp_path, {"reach.py": PROJECT.format(name="reach", broker=server.url())})
    said = [line.format(name="reach") for line in SAID]

    check = ended("check", "-A", "reach", cwd=tmp_path)
    with beatd("worker", "-A", "reach", "-n", "fast@h", cwd=tmp_path) as worker:
        worker.until(said[-1])
        worker.stop()

    for line in said:
        text, _, hint = line.partition("; ")
        assert f"warning: {text}\n" in check.stdout
        assert hint in check.stdout
        assert worker.output.count(line) == 1
    assert check.returncode == 0


def test_a_plain_app_has_nothing_out_of_reach(tmp_path: Path) -> None:
    text = """
        from celery import Celery
        app = Celery("simple", set_as_current=False)
        @app.task
        def plain(): pass
        """
    write(tmp_path, {"simple_project.py": text})
    app = of_app("simple_project", tmp_path).app

    said = [str(problem) for problem in out_of_reach(app)]

    assert [line for line in said if "simple" in line] == []


def test_celeryd_init_changes_the_settings_of_a_worker(tmp_path: Path) -> None:
    text = PROJECT.format(name="begun", broker="redis://h/0")
    write(tmp_path, {"begun.py": text})

    worker = load(Wanted(app="begun", worker="fast@h")).settings

    assert worker.task_default_queue == "fast"
    assert worker.worker_concurrency == 1


def test_what_a_receiver_of_celeryd_init_raises_is_a_warning(tmp_path: Path) -> None:
    text = """
        from celery import Celery, signals
        app = Celery("raising", broker="redis://h/0", set_as_current=False)
        @signals.celeryd_init.connect(sender="raising@h")
        def configure(instance, **kwargs):
            instance.concurrency = instance.nix
        """
    write(tmp_path, {"raising.py": text})

    warnings = load(Wanted(app="raising", worker="raising@h")).warnings

    assert [str(one) for one in warnings] == [
        "raising.py:6: celeryd_init: this line raised AttributeError: 'StartingWorker'"
        " object has no attribute 'nix'"
    ]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("pydantic", "unknown option 'pydantic'; beatd does not validate arguments: do it in the task's own code"),
        ("backend", "unknown option 'backend'; beatd has one result backend for all tasks: set result_backend"),
        ("Strategy", "unknown option 'Strategy'; a message is one run"),
    ],
)  # fmt: skip
def test_an_option_that_a_task_of_ours_cannot_have_is_refused(
    option: str, said: str
) -> None:
    app = Beatd("ours", set_as_current=False)

    with pytest.raises(ConfigError) as caught:
        app.task(name="add", **{option: True})(lambda: None)

    assert str(caught.value) == f"cannot use task 'add'\n  {said}"


def test_options_that_are_off_and_attributes_of_ones_own_are_no_problem() -> None:
    app = Beatd("ours", set_as_current=False)

    task = app.task(name="add", pydantic=False, tenant="a")(lambda: None)

    assert vars(type(task))["tenant"] == "a"
