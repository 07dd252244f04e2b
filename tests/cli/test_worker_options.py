"""Every option of `celery worker` is known here, or said not to be there."""

from pathlib import Path

import click
import pytest
from celery.bin.celery import celery as celery_command
from celery.bin.worker import worker as celery_worker

from beatd.cli import beatd, worker_options
from beatd.cli.options import given
from beatd.cli.worker import command
from beatd.config.options import Options

# Sections 5.1 and 5.2 of shared/celery-settings.md, with the spellings of 4.4.
SPELLINGS = """
    -A --app -b --broker --result-backend --loader --config --workdir -C --no-color
    -q --quiet --skip-checks
    -n --hostname -D --detach -S --statedb -l --loglevel -O --optimization
    --prefetch-multiplier --disable-prefetch
    -c --concurrency -P --pool -E --task-events --events --time-limit --soft-time-limit
    --max-tasks-per-child --maxtasksperchild --max-memory-per-child --maxmemperchild
    --pool-start-method
    --purge --discard -Q --queues -X --exclude-queues -I --include
    --without-gossip --without-mingle --without-heartbeat --heartbeat-interval
    --autoscale
    -f --logfile --pidfile --uid --gid --umask --executable
    -B --beat -s --schedule-filename --schedule --scheduler
"""
CELERY = SPELLINGS.split()

INFORMING = {"--help", "--version"}


def spellings(command: click.Command) -> set[str]:
    return {word for parameter in command.params for word in parameter.opts}


def test_the_page_of_the_options_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "worker-options.md"

    made = "python -m beatd.cli.worker_options > docs/..."
    assert page.read_text() == worker_options.page(), made


@pytest.mark.parametrize("option", CELERY)
def test_an_option_of_celery_is_ours_or_named_as_absent(option: str) -> None:
    ours, absent = spellings(command), worker_options.ABSENT

    assert (option in ours) != (option in absent)


def test_the_list_holds_what_the_installed_celery_has() -> None:
    theirs = spellings(celery_worker) | spellings(celery_command)

    assert theirs - INFORMING <= set(CELERY)


def test_a_pool_of_celerys_is_ours_or_named_as_absent() -> None:
    absent = {f"-P {name}" for name in pools(celery_worker) - pools(command)}

    assert absent <= worker_options.ABSENT.keys()


def pools(worker: click.Command) -> set[str]:
    (pool,) = (option for option in worker.params if "--pool" in option.opts)
    assert isinstance(pool.type, click.Choice)
    return set(pool.type.choices)


def test_what_celery_does_not_have_is_called_our_own() -> None:
    assert spellings(command) - set(CELERY) == worker_options.ADDED


def test_every_difference_is_on_the_page() -> None:
    page = worker_options.page()

    assert [text for text in worker_options.DIFFERENCES.values() if text in page] == [
        *worker_options.DIFFERENCES.values()
    ]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["-c", "auto"], {"worker_concurrency": "auto"}),
        (["-c", "3"], {"worker_concurrency": 3}),
        (["-P", "processes"], {"worker_pool": "processes"}),
        (["--disable-prefetch"], {"worker_disable_prefetch": True}),
        (["--events"], {"worker_send_task_events": True}),
        (["--maxtasksperchild", "9"], {"worker_max_tasks_per_child": 9}),
        (["--maxmemperchild", "9"], {"worker_max_memory_per_child": 9}),
        (["--without-gossip"], {"worker_enable_gossip": False}),
        (["--optimization", "fair"], {}),
        ([], {}),
    ],
)
def test_an_option_becomes_a_setting(
    words: list[str], settings: dict[str, object]
) -> None:
    said = given(command.make_context("worker", words))
    del said["beat"], said["purge"]

    assert Options(**said).settings() == settings


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("CELERY_WORKER_CONCURRENCY", "3", {"concurrency": 3}),
        ("CELERY_WORKER_TASK_EVENTS", "1", {"task_events": True}),
        ("CELERY_LOGLEVEL", "info", {"loglevel": "INFO"}),
        ("CELERY_APP", "proj", {"app": "proj"}),
        ("APP", "proj", {"app": "proj"}),
        ("BROKER_URL", "redis://", {"broker": "redis://"}),
        ("CELERY_BROKER", "redis://", {"broker": "redis://"}),
        ("RESULT_BACKEND", "redis://", {"result_backend": "redis://"}),
        ("CONFIG_MODULE", "conf", {"config": "conf"}),
    ],
)
def test_an_option_is_taken_from_the_environment_as_by_celery(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    option: dict[str, object],
) -> None:
    monkeypatch.setenv(variable, value)
    above = beatd.make_context("beatd", ["worker"], auto_envvar_prefix="CELERY")

    context = command.make_context("worker", [], parent=above)

    assert given(context).items() >= option.items()


@pytest.mark.parametrize("size", ["-1", "many"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(click.BadParameter):
        command.make_context("worker", ["-c", size])
