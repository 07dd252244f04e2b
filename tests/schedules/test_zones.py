"""Zones by name, and the local clock against zoneinfo itself."""

import pickle
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatd.errors import ScheduleError
from beatd.instant import DAY, MINUTE, Instant, datetime_of
from beatd.schedules.zones import UTC, local_clock, zone_of
from tests.schedules.times import at

ZONES = (
    *("America/New_York", "Europe/Dublin", "Africa/Casablanca", "Asia/Gaza"),
    *("Pacific/Apia", "America/Recife", "Africa/Freetown", "Africa/Monrovia"),
)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "Europe/Pariss",
            "no zone named 'Europe/Pariss'; did you mean 'Europe/Paris'?",
        ),
        (
            "europe/berlin",
            "no zone named 'europe/berlin'; did you mean 'Europe/Berlin'?",
        ),
        (
            "America/New York",
            "no zone named 'America/New York'; did you mean 'America/New_York'?",
        ),
        (
            "CEST",
            "no zone named 'CEST'; it is the summer time of regions: name one,"
            " as 'Europe/Paris'",
        ),
        ("../etc/passwd", "no zone named '../etc/passwd'"),
        ("", "no zone named ''"),
        ("America", "no zone named 'America'"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_name(
    name: str, problem: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        zone_of(name)

    assert refused.value.field == "timezone"
    assert refused.value.problem.startswith(problem)


instants = st.integers(at("1900-01-01T00:00Z"), at("2400-01-01T00:00Z"))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES).map(ZoneInfo), instants)
def test_the_clock_reads_what_zoneinfo_says(zone: ZoneInfo, instant: Instant) -> None:
    reading = datetime_of(instant, zone).replace(tzinfo=UTC)

    assert datetime_of(local_clock(zone).local(instant)) == reading


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES).map(ZoneInfo), instants)
def test_a_reading_is_found_at_its_first_instant(
    zone: ZoneInfo, instant: Instant
) -> None:
    clock = local_clock(zone)
    reading = clock.first_at(clock.local(instant))

    assert reading.local == clock.local(instant)
    assert reading.instant <= instant
    assert instant - reading.instant in (0, *(n * 30 * MINUTE for n in range(1, 48)))


def test_each_change_of_a_short_dst_is_seen() -> None:
    # Recife had summer time for a week.
    clock = local_clock(ZoneInfo("America/Recife"))
    begin, end = at("2000-10-08T03:00Z"), at("2000-10-15T02:00Z")

    first = clock.next_change(begin - DAY, end + DAY)
    assert first is not None
    assert first.start == begin
    second = clock.next_change(begin, end + DAY)
    assert second is not None
    assert second.start == end
    assert clock.next_change(end, end + 300 * DAY) is None


def test_a_pickled_clock_is_the_shared_one() -> None:
    clock = local_clock(ZoneInfo("Europe/Berlin"))

    assert pickle.loads(pickle.dumps(clock)) is clock
