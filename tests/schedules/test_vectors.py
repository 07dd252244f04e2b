"""All vectors: which slots a schedule names.

`vectors.jsonl` holds those of all schedules, `spellings.jsonl` those of later spellings
in cron expressions (`LW`, `L-3`, `FRI#L`) and recurrence rules. A line is one vector:
kind and spec of the schedule, zone, the instant to begin after, and the next slots.
"""

import json
import re
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from beatd.errors import ScheduleError
from tests.schedules.adapter import next_runs

Vector = dict[str, Any]


def _by_category() -> dict[str, list[Vector]]:
    categories = defaultdict(list)
    for name in ("vectors.jsonl", "spellings.jsonl"):
        for line in (Path(__file__).parent / name).read_text().splitlines():
            vector = json.loads(line)
            categories[vector["cat"]].append(vector)
    return categories


CATEGORIES = _by_category()


def test_no_vector_is_missing() -> None:
    assert sum(map(len, CATEGORIES.values())) == 5255 + 87


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_vector_gives_its_answer(category: str) -> None:
    wrong = [
        f"{vector['id']} {vector['spec']} {vector['tz']}: {problem}"
        for vector in CATEGORIES[category]
        if (problem := _problem(vector))
    ]

    assert wrong == []


def _problem(vector: Vector) -> str | None:
    try:
        got = next_runs(
            vector["kind"], vector["spec"], vector["tz"], vector["after"], vector["n"]
        )
    except ScheduleError as error:
        return _wrong_error(vector, error)
    if "error" in vector:
        return f"got {got}, expected an error about {vector['error']}"
    moments = [datetime.fromisoformat(text) for text in got]
    if "check" in vector:
        return _outside(vector, moments)
    wanted = [datetime.fromisoformat(text) for text in vector["next"]]
    tolerance = vector.get("tol", 0)
    if len(moments) == len(wanted) and all(
        abs((a - b).total_seconds()) <= tolerance
        for a, b in zip(moments, wanted, strict=True)
    ):
        return None
    return f"got {got}, expected {vector['next']}"


def _wrong_error(vector: Vector, error: ScheduleError) -> str | None:
    words = re.sub(r"[ _]", "-", str(error))
    if vector.get("error", "no error") in words:
        return None
    return f"raised {error}, expected {vector.get('error', vector.get('next'))}"


def _outside(vector: Vector, moments: list[datetime]) -> str | None:
    """What is drawn lies in its range, and is drawn once."""
    check, zone = vector["check"], ZoneInfo(vector["tz"])
    values = {getattr(moment.astimezone(zone), check["part"]) for moment in moments}
    in_range = all(check["min"] <= value <= check["max"] for value in values)
    if len(values) == 1 and in_range and len(moments) == vector["n"]:
        return None
    return f"got {values}, expected one of {check}"
