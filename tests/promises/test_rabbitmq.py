"""RabbitMQ: nothing is lost; at most one batch is doubled, under the same ids."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from beatd.brokers.amqp.message import Content, message_of
from tests.promises.harness import Beatd, Scene, check_slots
from tests.rabbitmq import VHost
from tests.servers import eventually

pytestmark = pytest.mark.xdist_group("rabbitmq")

DIES = """
import os, signal
from pathlib import Path
from beatd.brokers.amqp import AMQPBroker

note = AMQPBroker.note

def dies_between(self, *arguments):
    if Path("die").exists():
        Path("die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    note(self, *arguments)

AMQPBroker.note = dies_between
"""
"""A leader that is killed between the confirms and the ledger, once it is told to."""


@dataclass
class RabbitQueue:
    """Celery's default queue in a virtual host."""

    vhost: VHost

    def messages(self) -> list[bytes]:
        return [
            message_of(
                Content({}, one.headers, b""), "", "celery", "", redelivered=False
            )
            for one in self.vhost.messages()
        ]


@pytest.fixture
def scene(vhost: VHost, tmp_path: Path) -> Iterator[Scene]:
    with vhost.channel() as channel:
        channel.exchange_declare("celery", "direct", durable=True, auto_delete=False)
        channel.queue_declare("celery", durable=True, auto_delete=False)
        channel.queue_bind("celery", "celery", "celery")
    scene = Scene(tmp_path, RabbitQueue(vhost), vhost.url)
    yield scene
    scene.close()


def check(scene: Scene, doubled_at_most: int) -> None:
    """Each slot is there; of those that are doubled, the copies have one id."""
    raw = [json.loads(one)["headers"] for one in scene.queue.messages()]
    ids = Counter(header["id"] for header in raw)
    slots = {(one["beatd_entry"], one["beatd_slot"]): one["id"] for one in raw}
    assert len(slots) == len(ids)  # a slot has one id, however often it comes
    for entry, step in (("each", scene.every), ("second", 1.0)):
        found = {datetime.fromisoformat(slot) for name, slot in slots if name == entry}
        check_slots(entry, sorted(found), timedelta(seconds=step))
    assert len(raw) - len(ids) <= doubled_at_most


def leader_and_standby(scene: Scene) -> tuple[Beatd, Beatd]:
    leader = scene.beatd("leader", schedule_file="a.db").start()
    leader.until("leading, term")
    standby = scene.beatd("standby", schedule_file="b.db").start()
    standby.until("standing by")
    scene.until_slots(3)
    return leader, standby


@pytest.mark.promise
def test_a_leader_killed_between_confirm_and_ledger_doubles_its_last_batch(
    scene: Scene,
) -> None:
    config = scene.directory / "schedule_config.py"
    config.write_text(config.read_text() + DIES)
    leader, standby = leader_and_standby(scene)

    (scene.directory / "die").touch()
    leader.wait()
    standby.until("leading, term")
    scene.until_slots(5)

    check(scene, doubled_at_most=2)  # a batch is at most one slot of both entries
    raw = [json.loads(one)["headers"]["id"] for one in scene.queue.messages()]
    assert len(raw) - len({*raw}) >= 1  # it was killed there indeed


@pytest.mark.promise
def test_a_killed_leader_is_followed_at_once(scene: Scene) -> None:
    config = scene.directory / "schedule_config.py"
    config.write_text(f"{config.read_text()}\nbeat_lock_timeout = 600")
    leader, standby = leader_and_standby(scene)

    leader.kill()
    standby.until("leading, term")  # it waits for less than that
    scene.until_slots(5)

    check(scene, doubled_at_most=2)


@pytest.mark.promise
def test_a_leader_stopped_past_its_heartbeats_emits_nothing_afterwards(
    scene: Scene,
) -> None:
    leader, standby = leader_and_standby(scene)

    leader.send(signal.SIGSTOP)
    standby.until("leading, term")
    scene.until_slots(10)
    leader.send(signal.SIGCONT)
    leader.until("lost the lead")
    scene.until_slots(10)

    check(scene, doubled_at_most=2)


@pytest.mark.promise
def test_connections_that_an_operator_closes_cost_nothing(
    scene: Scene, vhost: VHost
) -> None:
    leader_and_standby(scene)

    for _ in range(3):
        vhost.rabbit.close_connections(vhost.name, "maintenance")
        scene.until_slots(5)

    check(scene, doubled_at_most=6)  # one batch each time


@pytest.mark.promise
def test_a_server_that_is_killed_and_comes_back_has_all_that_it_confirmed(
    scene: Scene, vhost: VHost
) -> None:
    leader_and_standby(scene)

    vhost.rabbit.restart()
    scene.until_slots(10)

    check(scene, doubled_at_most=2)


@pytest.mark.promise
def test_a_server_that_is_stopped_for_an_upgrade_is_waited_for(
    scene: Scene, vhost: VHost
) -> None:
    leader, _ = leader_and_standby(scene)

    vhost.rabbit.stop_app()
    leader.until("stopped emitting")
    vhost.rabbit.start_app()
    scene.until_slots(10)

    check(scene, doubled_at_most=2)


@pytest.mark.promise
def test_a_leader_killed_during_an_alarm_leaves_nothing_behind(
    scene: Scene, vhost: VHost
) -> None:
    leader, standby = leader_and_standby(scene)

    with vhost.rabbit.alarm():
        leader.until("low on memory or disk")
        leader.kill()
    standby.until("leading, term")
    scene.until_slots(10)

    check(scene, doubled_at_most=2)


@pytest.mark.promise
def test_a_server_that_was_emptied_goes_on_from_the_schedule_file(
    scene: Scene, vhost: VHost
) -> None:
    leader = scene.beatd("leader").start()
    scene.until_slots(10)
    before = {*scene.slots("each")}

    with vhost.channel() as channel:
        channel.queue_delete("celery")
        channel.queue_delete("beatd.ledger.default")
    vhost.rabbit.close_connections(vhost.name, "emptied")
    eventually(lambda: leader.said("leading, term") >= 2)
    scene.until_slots(10)

    after = scene.slots("each")
    assert not before & {*after}
    check_slots("each", after, timedelta(seconds=scene.every))
