"""Start as many schedulers as you like: one leads, every slot comes once."""

import signal

import pytest

from tests.promises.harness import Scene, moments


@pytest.mark.promise
@pytest.mark.parametrize("number", [2, 3])
def test_several_schedulers_emit_every_slot_once(on_redis: Scene, number: int) -> None:
    for host in range(number):
        on_redis.beatd(f"host{host}", schedule_file=f"host{host}.db").start()

    on_redis.until_slots(2)
    for _ in moments(seed=0, number=1, shortest=30, longest=30):
        on_redis.check()

    # One that a busy machine kept from renewing its lead has lost it, and says so.
    led, lost = (
        sum(beatd.said(words) for beatd in on_redis.beatds)
        for words in ("leading, term", "lost the lead")
    )
    assert led - lost == 1


def test_a_standby_takes_over_at_once_when_the_leader_stops(scene: Scene) -> None:
    leader = scene.beatd("leader").start()
    leader.until("leading, term")
    standby = scene.beatd("standby").start()
    standby.until("standing by")

    leader.send(signal.SIGTERM)
    standby.until("leading, term")
    scene.until_slots(5)

    assert leader.wait() == 0
    scene.check()


def test_a_standby_takes_over_from_a_killed_leader(on_redis: Scene) -> None:
    leader = on_redis.beatd("leader", schedule_file="a.db").start()
    leader.until("leading, term")
    standby = on_redis.beatd("standby", schedule_file="b.db").start()
    standby.until("standing by")
    on_redis.until_slots(3)

    leader.kill()
    standby.until("leading, term")
    on_redis.until_slots(15)

    on_redis.check()


def test_a_leader_stopped_past_its_lock_emits_nothing_afterwards(
    on_redis: Scene,
) -> None:
    leader = on_redis.beatd("leader", schedule_file="a.db").start()
    on_redis.until_slots(3)
    standby = on_redis.beatd("standby", schedule_file="b.db").start()
    standby.until("standing by")

    leader.send(signal.SIGSTOP)
    standby.until("leading, term")
    on_redis.until_slots(10)
    leader.send(signal.SIGCONT)
    leader.until("lost the lead")
    on_redis.until_slots(10)

    on_redis.check()
