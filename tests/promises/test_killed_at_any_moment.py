"""`kill -9` at random moments: no slot is lost, none is doubled."""

import pytest

from tests.promises.harness import Scene, moments


def kill_and_start(scene: Scene, *, times: int, seed: int) -> None:
    beatd = scene.beatd().start()
    beatd.until("leading, term")
    for _ in moments(seed, times, shortest=0.05, longest=1.5):
        beatd.kill()
        beatd.start()
    scene.until_slots(10)
    scene.check()


@pytest.mark.promise
def test_killed_twenty_times_every_slot_comes_once(scene: Scene) -> None:
    kill_and_start(scene, times=20, seed=20_261_123)


def test_killed_a_few_times_every_slot_comes_once(scene: Scene) -> None:
    kill_and_start(scene, times=3, seed=7)
