import uuid

import pytest

from beatd.ids import call_id, instant_of_id, run_id
from beatd.instant import Instant
from tests.wire.vectors import NOON

FIRST = run_id("shop", "report", 0, NOON)


def test_a_run_id_begins_with_its_slot() -> None:
    assert FIRST.replace("-", "").startswith(f"{NOON:012x}8")


def test_a_run_id_never_changes_between_versions_of_beatd() -> None:
    # A standby of another version takes over in the middle of a batch.
    assert run_id("shop", "report", 3, 1_795_000_000_000) == (
        "01a1ee56-5e00-8a91-8934-85a45df3bc3c"
    )


@pytest.mark.parametrize(
    ("namespace", "entry", "era", "slot"),
    [
        ("shop2", "report", 0, NOON),
        ("shop", "report2", 0, NOON),
        ("shop", "report", 1, NOON),
        ("shop", "report", 0, NOON + 1),
        ("shopr", "eport", 0, NOON),
    ],
)
def test_whatever_differs_makes_another_id(
    namespace: str, entry: str, era: int, slot: Instant
) -> None:
    assert run_id(namespace, entry, era, slot) != FIRST


def test_run_ids_are_uuids_of_version_8_that_sort_by_slot() -> None:
    ids = [run_id("shop", "report", 0, NOON + n * 1000) for n in range(100)]

    assert ids == sorted(ids)
    assert {uuid.UUID(one).version for one in ids} == {8}
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}
    assert [str(uuid.UUID(one)) for one in ids] == ids


def test_a_call_id_is_a_uuid_of_version_7() -> None:
    task_id = call_id(NOON, bytes(range(9)))

    assert uuid.UUID(task_id).version == 7
    assert uuid.UUID(task_id).variant == uuid.RFC_4122
    assert call_id(NOON, bytes(range(1, 10))) != task_id


@pytest.mark.parametrize("instant", [0, 1, NOON, (1 << 48) - 1])
def test_an_id_tells_its_instant(instant: Instant) -> None:
    assert instant_of_id(run_id("shop", "report", 0, instant)) == instant
    assert instant_of_id(call_id(instant, bytes(9))) == instant


@pytest.mark.parametrize("slot", [-1, -(10**13), 1 << 48, 1 << 60])
def test_slots_that_48_bits_cannot_hold_still_have_ids_of_their_own(
    slot: Instant,
) -> None:
    task_id = run_id("shop", "report", 0, slot)

    assert instant_of_id(task_id) in (0, (1 << 48) - 1)
    assert run_id("shop", "report", 0, slot + 1) != task_id


@pytest.mark.parametrize(
    "task_id", ["", "backup", str(uuid.UUID(int=5, version=4)), "0" * 32, "é" * 36]
)
def test_other_ids_tell_no_instant(task_id: str) -> None:
    assert instant_of_id(task_id) is None


def test_a_name_may_hold_anything() -> None:
    assert run_id("\ud800", "\udfff\0", 0, NOON) != run_id("\ud800", "\udfff", 0, NOON)
