"""`beatd dead`, and `beatd worker --purge`, which takes what lies in the queues."""

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beatd.brokers.base import Broker
from beatd.brokers.items import SetAside
from beatd.brokers.sqlite import SQLiteBroker
from beatd.cli import beatd, main
from beatd.cli.output import Screen
from beatd.instant import HOUR, MINUTE
from beatd.service import worker as service  # noqa: F401 - not for the first time at a frozen time
from tests.brokers.making import lying_in, outgoing, settle
from tests.cli.conftest import NOW, Run, unsaid
from tests.fakes import FakeClock
from tests.processes import ended
from tests.servers import Server

BROKER = "sqlite:///broker.db"

LIST = """\
ID  SET ASIDE (Europe/Berlin)  QUEUE    TASK            TRIES  REASON
3   14:05:02      10 s         celery   -               1      not a message:...
2   13:05:12        1h         reports  shop.tasks.sum  6      delivered 5 ti...
1   Sun 14:05       1d         celery   shop.tasks.old  1      no task is reg...
"""


class Terminal(io.BytesIO):
    """Someone who types."""

    def isatty(self) -> bool:
        return True


def typed(text: str, *words: str) -> Result:
    """Run `beatd` with someone before it."""
    return CliRunner().invoke(beatd, words, input=Terminal(text.encode()))


@pytest.fixture
def broker(shop: Path) -> Iterator[Broker]:
    """The shop's broker, with three messages set aside over time."""
    config = shop.read_text()
    shop.write_text(f'{config}\nbroker_url = "{BROKER}"\n')
    clock = FakeClock(NOW)
    broker = SQLiteBroker(Path("broker.db"), namespace="default", clock=clock)
    clock.time = NOW - 24 * HOUR
    set_aside(
        broker, "celery", b"{}", "no task is registered", "shop.tasks.old", "id-1"
    )
    clock.time = NOW - HOUR
    long = "delivered 5 times, each time fatal: signal 9 (SIGKILL); signal 9 (SIGKILL)"
    for name in "12345":
        broker.join(name, 1)
        if name == "1":
            broker.send([outgoing(b'{"headers": {}}', "reports")])
        broker.take(name, ["reports"], 1, 1)
        broker.recover()  # another worker's heartbeat sees that it lives
        clock.passed += MINUTE
        broker.recover()
    set_aside(broker, "reports", None, long, "shop.tasks.sum", "id-2")
    clock.time = NOW - 10_000
    set_aside(broker, "celery", b"\xff\x00", "not a message: not JSON")
    yield broker
    broker.close()


REQUESTS = count(1)


def set_aside(
    broker: Broker,
    queue: str,
    message: bytes | None,
    reason: str,
    task: str = "",
    task_id: str = "",
) -> None:
    if message is not None:
        broker.send([outgoing(message, queue)])
    broker.join("w1", 1000 * HOUR)
    [delivery] = broker.take("w1", [queue], 1, next(REQUESTS))
    settle(broker, "w1", SetAside(delivery, reason, task, task_id))


def ids(broker: Broker) -> list[str]:
    return [letter.id for letter in broker.dead_letters()]


@pytest.mark.usefixtures("broker")
def test_the_newest_letters_come_first_and_the_reason_is_cut(run: Run) -> None:
    lines = run("dead", "list", screen=Screen(width=80)).stdout.splitlines()

    assert lines[:4] == LIST.splitlines()
    assert " ".join(lines[-2:]) == (
        "3 messages at sqlite:///broker.db.  beatd dead retry ID puts one back to its"
        " queue, drop ID removes it."
    )


@pytest.mark.usefixtures("broker")
def test_without_a_command_letters_are_listed(run: Run) -> None:
    listed = run("dead", "list", screen=Screen(width=80))

    assert run("dead", screen=Screen(width=80)).stdout == listed.stdout != ""


@pytest.mark.usefixtures("broker")
def test_in_a_pipe_nothing_is_cut(run: Run) -> None:
    assert "signal 9 (SIGKILL); signal 9 (SIGKILL)\n" in run("dead", "list").stdout


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["3", "2", "1"]),
        (["shop.*"], ["2", "1"]),
        (["*.sum", "3"], ["3", "2"]),
        (["id-1"], ["1"]),
        (["--limit", "1"], ["3"]),
    ],
)
def test_letters_are_chosen_by_number_task_id_or_pattern(
    run: Run, words: list[str], expected: list[str]
) -> None:
    document = json.loads(run("dead", "list", "--json", *words).stdout)

    assert [letter["id"] for letter in document["letters"]] == expected
    assert document["total"] == 3


@pytest.mark.usefixtures("broker")
def test_json_says_all_that_is_known(run: Run) -> None:
    document = json.loads(run("dead", "list", "2", "--json").stdout)

    assert document["schema"] == "beatd.dead/1"
    [letter] = document["letters"]
    assert letter.pop("reason").startswith("delivered 5 times")
    assert letter == {
        "id": "2",
        "queue": "reports",
        "task": "shop.tasks.sum",
        "task_id": "id-2",
        "at": "2026-11-23T13:05:12+01:00",
        "at_ts": 1795435512.0,
        "deliveries": 6,
        "worker": "w1",
        "size": 15,
    }


@pytest.mark.usefixtures("shop")
def test_where_nothing_was_set_aside_the_list_says_so(run: Run) -> None:
    output = run("dead", "list", "-b", "memory://").stdout

    assert output == "no dead letters at memory://: nothing was set aside.\n"


@pytest.mark.usefixtures("broker")
def test_show_says_everything_but_the_arguments(run: Run) -> None:
    assert run("dead", "show", "2").stdout == (
        "dead letter 2\n"
        "  reason      delivered 5 times, each time fatal:"
        " signal 9 (SIGKILL); signal 9 (SIGKILL)\n"
        "  task        shop.tasks.sum\n"
        "  task id     id-2\n"
        "  queue       reports\n"
        "  set aside   13:05:12, 1h ago (Europe/Berlin), by w1\n"
        "  deliveries  6\n"
        "  message     15 bytes: beatd dead show 2 --raw\n"
        "\n"
        "back to its queue: beatd dead retry 2\n"
    )


@pytest.mark.usefixtures("broker")
def test_show_gives_the_message_itself(run: Run) -> None:
    texts = [
        json.loads(run("dead", "show", number, "--json").stdout)["letter"]["message"]
        for number in "23"
    ]

    assert run("dead", "show", "3", "--raw").stdout_bytes == b"\xff\x00"
    assert texts == [{"text": '{"headers": {}}'}, {"base64": "/wA="}]


def test_retry_puts_messages_back(run: Run, broker: Broker) -> None:
    output = run("dead", "retry", "shop.*", "--yes").stdout

    assert output == "put back 2 messages: celery 1, reports 1\n"
    assert ids(broker) == ["3"]
    assert lying_in(broker, "reports") == [b'{"headers": {}}']


def test_retry_asks_for_a_pattern_and_not_for_numbers(run: Run, broker: Broker) -> None:
    refused = run("dead", "retry", "*", status=1)
    assert "error: 3 messages not put back\n  without a question:  --yes" in (
        refused.stderr
    )
    assert typed("n\n", "dead", "retry", "*").exit_code == 1
    assert ids(broker) == ["1", "2", "3"]

    result = typed("y\n", "dead", "retry", "shop.*")
    assert "put 2 messages back?" in result.stderr
    assert result.stdout == "put back 2 messages: celery 1, reports 1\n"
    run("dead", "retry", "3")
    assert ids(broker) == []


def test_retry_says_which_messages_a_queue_refuses(
    run: Run, broker: Broker, shop: Path
) -> None:
    with closing(sqlite3.connect(shop.with_name("broker.db"))) as db:
        db.execute(
            "CREATE TRIGGER closed BEFORE INSERT ON messages WHEN NEW.queue = 'reports'"
            " BEGIN SELECT RAISE(ABORT, 'it is closed'); END"
        )

    result = run("dead", "retry", "*", "--yes", status=1)

    assert result.stdout == "put back 2 messages: celery 2\n"
    assert result.stderr == (
        "error: 1 message not put back, still set aside\n"
        "  2 to reports: broker.db refuses: it is closed\n"
    )
    assert ids(broker) == ["2"]


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("words", [["list"], ["show", "1"], ["show", "3"]])
def test_every_name_in_a_document_is_on_the_page(run: Run, words: list[str]) -> None:
    document = json.loads(run("dead", *words, "--json").stdout)

    assert unsaid(document) == set()


def test_drop_asks_and_drops_when_told_to(broker: Broker) -> None:
    result = typed("y\n", "dead", "drop", "1", "2")

    assert result.stdout == "dropped 2 messages\n"
    listed, _, question = result.stderr.partition("drop 2 messages for ever?")
    assert question
    assert [line.split()[0] for line in listed.splitlines()] == ["ID", "2", "1"]
    assert ids(broker) == ["3"]


def test_drop_does_nothing_when_told_not_to(broker: Broker) -> None:
    result = typed("n\n", "dead", "drop", "*")

    assert result.exit_code == 1
    assert ids(broker) == ["1", "2", "3"]


def test_drop_needs_a_yes_where_nobody_can_be_asked(run: Run, broker: Broker) -> None:
    assert "--yes" in run("dead", "drop", "1", status=1).output
    assert ids(broker) == ["1", "2", "3"]

    run("dead", "drop", "1", "--yes")
    assert ids(broker) == ["2", "3"]


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("verb", ["list", "show", "retry", "drop"])
def test_a_name_that_no_letter_has_is_a_mistake(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dead", verb, "nobody.*"]) == 3
    assert "no dead letter is named by 'nobody.*'" in capsys.readouterr().err


@pytest.mark.usefixtures("shop")
def test_a_broker_that_is_away_has_its_own_status() -> None:
    assert main(["dead", "list", "-b", "redis://127.0.0.1:1/0"]) == 75


def test_purge_asks_before_it_removes_anything(broker: Broker) -> None:
    broker.send([outgoing(b"1")])

    result = typed("n\n", "worker", "--purge")

    assert "remove all messages that wait in celery?" in result.stderr
    assert result.exit_code == 1
    assert lying_in(broker) == [b"1"]


def test_a_file_that_is_not_there_is_said_and_not_made(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("elsewhere").mkdir()
    before = sorted(Path().rglob("*"))

    assert main(["dead", "list", "--schedule-filename", "elsewhere/s.db"]) == 0

    said = capsys.readouterr()
    place = "sqlite:///elsewhere/broker.db"
    assert said.out == f"no dead letters at {place}: nothing was set aside.\n"
    assert "there is no file elsewhere/broker.db yet" in said.err
    assert sorted(Path().rglob("*")) == before


def test_letters_are_looked_for_where_the_worker_takes_from(
    tmp_path: Path, server: Server
) -> None:
    """Read and write addresses may differ; both lie beside the schedule file else."""
    (tmp_path / "celeryconfig.py").write_text(
        f"broker_write_url = 'sqlite:///none.db'\nbroker_read_url = {server.url(0)!r}"
    )

    said = ended("dead", "list", cwd=tmp_path)

    assert f"no dead letters at {server.url(0)}:" in said.stdout
