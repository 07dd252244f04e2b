"""What is read of a pickle, and that nothing which it names is run."""

import os
import pickle
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule, solar
from celery.utils.time import LocalTimezone
from hypothesis import given
from hypothesis import strategies as st

from beatd.migrate.pickles import Kept, Refused, read

BERLIN = ZoneInfo("Europe/Berlin")
MOMENT = datetime(2026, 11, 30, 12, 0, 1, 250, tzinfo=UTC)


def read_of(value: object, protocol: int = pickle.DEFAULT_PROTOCOL, **more: Any) -> Any:
    return read(pickle.dumps(value, protocol), BERLIN, **more)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "zone",
    [UTC, timezone(timedelta(hours=2)), ZoneInfo("UTC"), BERLIN, None],
)
def test_dates_are_as_they_were(zone: Any, protocol: int) -> None:
    moment = MOMENT.replace(tzinfo=zone)

    found = read_of({"at": moment}, protocol)["at"]

    assert found == moment
    assert found.utcoffset() == moment.utcoffset()


def test_celerys_local_time_is_the_configs_zone() -> None:
    moment = MOMENT.replace(tzinfo=LocalTimezone())

    assert read_of({"at": moment})["at"].utcoffset() == timedelta(hours=1)


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        (b"cpytz\n_p\n(S'Europe/Berlin'\nI3600\nI0\nS'CET'\ntR", 1),
        (b"cpytz\n_UTC\n)R", 0),
    ],
)
def test_a_zone_of_pytz_is_asked_for_by_its_name(zone: bytes, hours: int) -> None:
    """As pytz writes them: its own functions make them."""
    state: Any = MOMENT.replace(tzinfo=None).__reduce_ex__(3)[1]
    moment = b"cdatetime\ndatetime\nC\x0a" + state[0] + zone + b"\x86R"
    found: Any = read(b"\x80\x03}S'at'\n" + moment + b"s.", BERLIN)

    assert found["at"].utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_entry_is_what_it_was_made_of(protocol: int) -> None:
    kinds = [crontab(minute="*/5"), schedule(60), solar("sunset", 52, 13)]
    entries = {
        f"entry-{number}": ScheduleEntry(
            *(f"entry-{number}", "t", MOMENT, 7, kind, (1, {2})),
            kwargs={"a": OrderedDict(b=1)},
            options={"queue": "q"},
        )
        for number, kind in enumerate(kinds)
    }

    found = read_of(entries, protocol)

    assert list(found) == list(entries)
    for name, one in found.items():
        assert isinstance(one, Kept)
        assert one.origin == "celery.beat.ScheduleEntry"
        assert one.arguments[:4] == (name, "t", MOMENT, 7)


class Ours:
    """A class of the project's."""


def test_a_class_of_the_projects_is_passed_over_if_it_is_named() -> None:
    name = f"{__name__}.Ours"

    with pytest.raises(Refused, match=f"it names '{name}'"):
        read_of({"a": Ours()})

    assert isinstance(read_of({"a": Ours()}, allowed=[name])["a"], Kept)


class Runs:
    """Runs a command where it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def hostile(mark: Path) -> dict[str, bytes]:
    command = f"touch {mark}"
    text = f"open({str(mark)!r}, 'w')"
    calls = {
        "system": Runs(os.system, command),
        "eval": Runs(eval, text),
        "exec": Runs(exec, text),
        "open": Runs(open, str(mark), "w"),
        "getattr": Runs(getattr, datetime, "now"),
        "import": Runs(__import__, "antigravity"),
    }
    found = {name: pickle.dumps({"a": call}) for name, call in calls.items()}
    found["in an entry"] = pickle.dumps(
        {"a": ScheduleEntry("a", "t", MOMENT, 1, 60, (calls["system"],))}
    )
    touch = command.encode()
    found["dotted"] = b"\x80\x04\x8c\x08datetime\x8c\x0edatetime.strptime\x93)R."
    found["by way of datetime"] = (
        b"\x80\x04\x8c\x08datetime\x8c\x07sys.os.x\x93\x8c\x01a\x85R."
    )
    found["INST"] = b"(S'" + touch + b"'\nios\nsystem\n."
    found["OBJ"] = b"(cos\nsystem\nS'" + touch + b"'\no."
    found["persistent"] = b"Pwherever\n."
    found["extension"] = b"\x80\x02\x82\x01."
    found["of Celery"] = b"ccelery.platforms\nsetuid\n(I0\ntR."
    found["truncated"] = pickle.dumps({"a": 1})[:-3]
    found["empty"] = b""
    found["a list"] = pickle.dumps([1])
    found["a huge place"] = b"\x80\x02}r\xff\xff\xff\x7f."
    found["deep"] = b"(" * 100_000 + b"."
    return found


@pytest.mark.parametrize("name", hostile(Path("mark")))
def test_a_hostile_pickle_is_refused_and_runs_nothing(
    name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    with pytest.raises(Refused) as refused:
        read(hostile(mark)[name], BERLIN)

    assert str(refused.value)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(Refused):
        read(data, BERLIN)


@given(st.data())
def test_a_pickle_with_other_bytes_is_read_or_refused(data: st.DataObject) -> None:
    pickled = bytearray(
        pickle.dumps({"a": ScheduleEntry("a", "t", MOMENT, 1, crontab(), ())})
    )
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(pickled) - 1))
        pickled[at] = data.draw(st.integers(0, 255))
    with suppress(Refused):
        read(bytes(pickled), BERLIN)
