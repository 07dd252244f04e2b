"""Write what was measured into docs/performance.md.

    python -m benchmarks.report

Each script leaves what it measured in build/bench. The first table has each claim with
what it aims at, what the last runs found for it and for the peers in the same run; then
the tables of all scripts follow as they are. What has not been measured says so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import RESULTS, ROOT

PAGE = ROOT / "docs/performance.md"
SCRIPTS = (
    *("at_once", "lateness", "start", "million", "takeover"),
    *("next_run", "worker", "sending", "commands"),
)
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Claim:
    """A line of the table: what is aimed at, and where its figure stands."""

    what: str
    aim: str
    script: str
    table: int
    row: str
    column: str
    form: str = ",.0f"
    unit: str = ""
    peers: Sequence[str] = ()
    """The rows of the same table that are set beside it."""
    best: bool = False
    """Whether to say how many times as much it is as the best of the peers."""
    limit: str = ""
    """The row of a bare loop, of which it is a part."""


PEERS_OF_WORKER = "huey", "taskiq", "dramatiq", "celery, solo x2", "celery, prefork"
SENDERS = "RQ", "huey", "dramatiq", "celery"

CLAIMS = (
    *(
        Claim(
            f"{number} entries due at once, into Redis",
            "0.55 of the bare loop, twice huey, 100,000/s",
            "at_once",
            table,
            "beatd",
            "messages/s",
            unit="/s",
            peers=("huey", "RQ cron", "RedBeat", "celery"),
            best=True,
            limit="bare loop",
        )
        for table, number in enumerate(("10,000", "100,000"))
    ),
    Claim(
        "all of 10,000 out after the minute",
        "0.15 s",
        "at_once",
        0,
        "beatd",
        "to the last, s",
        ".3f",
        " s",
        ("RQ cron", "RedBeat"),
    ),
    Claim(
        "100,000 entries due at once, into SQLite, durable",
        "60,000/s",
        "at_once",
        1,
        "beatd, SQLite",
        "messages/s",
        unit="/s",
        peers=("huey, SQLite (OFF)",),
        best=True,
        limit="bare loop, SQLite",
    ),
    *(
        Claim(
            f"lateness of {number} entries, {words}",
            aim,
            "lateness",
            table,
            "beatd",
            column,
            ".1f",
            " ms",
            ("APScheduler", "taskiq", "RQ cron", "RedBeat", "celery"),
        )
        for table, number, column, words, aim in (
            (0, "1,000", "p99, ms", "p99", "3 ms"),
            (0, "1,000", "most, ms", "most", "50 ms"),
            (1, "10,000", "p99, ms", "p99", "10 ms"),
            (1, "10,000", "most, ms", "most", "50 ms"),
        )
    ),
    Claim(
        "processor time of 1,000 emissions in that run, 10,000 entries",
        "0.02 s",
        "lateness",
        1,
        "beatd",
        "CPU s for 1,000",
        ".4f",
        " s",
        ("APScheduler", "taskiq", "RQ cron", "RedBeat", "celery"),
    ),
    *(
        Claim(
            f"100,000 entries over 500 schedules: {words}",
            aim,
            "start",
            0,
            "beatd",
            column,
            form,
            unit,
            ("RQ cron", "huey", "APScheduler", "celery", "saq"),
        )
        for words, aim, column, form, unit in (
            ("start to first emission, cold", "2 s", "cold, s", ".2f", " s"),
            ("start to first emission, warm", "2 s", "warm, s", ".2f", " s"),
            ("memory for each entry", "600 B", "bytes/entry", ",.0f", " B"),
        )
    ),
    *(
        Claim(
            f"1,000,000 entries over 5,000 schedules: {words}",
            aim,
            "million",
            0,
            "beatd",
            column,
            form,
            unit,
        )
        for words, aim, column, form, unit in (
            ("start, cold", "20 s", "cold, s", ".1f", " s"),
            ("start, warm", "20 s", "warm, s", ".1f", " s"),
            ("resident memory", "700 MB", "resident, MB", ",.0f", " MB"),
            ("idle", "none", "idle, % of a core", ".2f", " % of a core"),
        )
    ),
    Claim(
        "take-over with 100,000 entries, after SIGTERM",
        "0.2 s",
        "takeover",
        0,
        "beatd",
        "SIGTERM, s",
        ".3f",
        " s",
    ),
    Claim(
        "the same after SIGKILL",
        "5.2 s",
        "takeover",
        0,
        "beatd",
        "SIGKILL, s",
        ".3f",
        " s",
    ),
    Claim(
        "next run of one cron expression, median",
        "3 us",
        "next_run",
        0,
        "beatd",
        "median, us",
        ".1f",
        " us",
        ("celery", "cronsim", "croniter"),
    ),
    Claim(
        "worker: tasks/s, prefork, results off",
        "25,000/s, 3 times the fastest peer",
        "worker",
        0,
        "beatd, prefork",
        "tasks/s",
        unit="/s",
        peers=PEERS_OF_WORKER,
        best=True,
    ),
    Claim(
        "worker: tasks/s, prefork, results on",
        "18,000/s, 2.8 times",
        "worker",
        0,
        "beatd, prefork",
        "+ results",
        unit="/s",
        peers=PEERS_OF_WORKER,
        best=True,
    ),
    Claim(
        "worker: tasks/s on SQLite, durable",
        "15,000/s",
        "worker",
        0,
        "beatd, SQLite",
        "tasks/s",
        unit="/s",
        peers=("huey, SQLite",),
        best=True,
    ),
    Claim(
        "worker: Redis's processor time for a task",
        "12 us",
        "worker",
        0,
        "beatd, prefork",
        "Redis us/task",
        ".1f",
        " us",
        PEERS_OF_WORKER,
    ),
    *(
        Claim(
            f"worker: sent to finished when idle, {row.partition(', ')[2]}, {words}",
            aim,
            "worker",
            0,
            row,
            f"{words}, ms",
            ".2f",
            " ms",
            ("huey, SQLite",) if "SQLite" in row else PEERS_OF_WORKER,
        )
        for row, words, aim in (
            ("beatd, prefork", "p50", "0.8 ms"),
            ("beatd, prefork", "p99", "1.5 ms"),
            ("beatd, SQLite", "p50", "5 ms"),
            ("beatd, SQLite", "p99", "15 ms"),
        )
    ),
    Claim(
        "worker: memory of all processes (PSS)",
        "50 MB",
        "worker",
        0,
        "beatd, prefork",
        "PSS, MB",
        ".0f",
        " MB",
        ("arq x2", *PEERS_OF_WORKER),
    ),
    Claim(
        "sending: `delay` in a loop",
        "15,000/s",
        "sending",
        0,
        "beatd",
        "one by one, tasks/s",
        unit="/s",
        peers=SENDERS,
    ),
    Claim(
        "sending: `send_many`",
        "100,000/s",
        "sending",
        0,
        "beatd",
        "many at once, tasks/s",
        unit="/s",
    ),
    Claim("`beatd --help`", "0.15 s", "commands", 0, "--help", "seconds", ".2f", " s"),
    Claim(
        "`beatd list` over 10,000 entries",
        "0.7 s",
        "commands",
        0,
        "list",
        "seconds",
        ".2f",
        " s",
    ),
    Claim(
        "`beatd next --until` a week over 10,000 entries",
        "10 s",
        "commands",
        0,
        "next",
        "seconds",
        ".2f",
        " s",
    ),
)

Results = Mapping[str, Any]

SIZES = {
    ("at_once", 0): "10,000 ",
    ("at_once", 1): "100,000 ",
    ("lateness", 0): " 1,000 ",
    ("lateness", 1): "10,000 ",
    ("start", 0): "100,000 ",
    ("million", 0): "1,000,000 ",
    ("takeover", 0): "100,000 ",
    ("commands", 0): "10,000 ",
}
"""By script and number of its table, what stands in the title: a run with other numbers
is not taken for the claim's."""


def results() -> dict[str, Results]:
    found = {}
    for script in SCRIPTS:
        path = RESULTS / f"{script}.json"
        if path.exists():
            found[script] = json.loads(path.read_text())
    return found


def figure(claim: Claim, row: str, found: Mapping[str, Results]) -> float | None:
    """Return a figure of the table of the claim; None if it was not measured."""
    tables = found[claim.script]["tables"] if claim.script in found else []
    medians: dict[str, dict[str, float]] = next(
        (one["medians"] for one in tables if is_of(claim, one)), {}
    )
    if claim.script == "commands":
        row = next((name for name in medians if name.startswith(f"beatd {row}")), row)
    return medians.get(row, {}).get(claim.column)


def is_of(claim: Claim, table: Results) -> bool:
    """Return whether a table has what the claim is about: as many entries."""
    title: str = table["lines"][0][0]
    return SIZES.get((claim.script, claim.table), "") in f" {title}"


def claims(found: Mapping[str, Results]) -> Iterator[str]:
    yield "| claim | aim | measured | peers in the same run |"
    yield "|---|---|---|---|"
    for claim in CLAIMS:
        value = figure(claim, claim.row, found)
        values = {peer: figure(claim, peer, found) for peer in claim.peers}
        known = {peer: one for peer, one in values.items() if one is not None}
        beside = ", ".join(f"{peer} {one:{claim.form}}" for peer, one in known.items())
        ours = said(claim, value, known, found)
        yield f"| {claim.what} | {claim.aim} | {ours} | {beside} |"


def said(
    claim: Claim,
    value: float | None,
    peers: Mapping[str, float],
    found: Mapping[str, Results],
) -> str:
    if value is None:
        return NOT_MEASURED
    words = f"{value:{claim.form}}{claim.unit}"
    if claim.best and peers:
        best = max(peers, key=peers.__getitem__)
        words += f", {value / peers[best]:.1f} times {best}"
    limit = figure(claim, claim.limit, found) if claim.limit else None
    if limit:
        words += f", {value / limit:.2f} of the loop"
    return words


def tables(found: Mapping[str, Results]) -> Iterator[str]:
    for script, result in found.items():
        yield f"### {script.capitalize().replace('_', ' ')}"
        yield ""
        yield f"`{result['command']}`, {result['when']}, load average {result['load']}:"
        cores, _, versions = result["surroundings"].partition(", load average")
        yield f"{cores}, {versions.partition(', ')[2]}."
        for table in result["tables"]:
            head, *lines = table["lines"]
            yield ""
            yield f"| {' | '.join(head)} |"
            yield "|---" + "|--:" * (len(head) - 1) + "|"
            for line in lines:
                yield f"| {' | '.join(line)} |"
        yield ""


def filled(page: str, name: str, lines: Iterator[str]) -> str:
    """Return the page with these lines between the two marks of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def main() -> None:
    found = results()
    page = filled(PAGE.read_text(), "claims", claims(found))
    PAGE.write_text(filled(page, "tables", tables(found)))
    print(f"{PAGE.relative_to(ROOT)}: {', '.join(found) or 'nothing measured yet'}")


if __name__ == "__main__":
    main()
