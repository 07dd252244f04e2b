"""`python -m tests.soak --minutes 20`: schedulers, workers and Redis under faults.

Three of each but Redis, 200 entries, a fault every few seconds. At the end every slot
must be accounted for, by `beatd audit` and by a checker that shares no code with it,
and both must agree.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.soak.checker import Account, Evidence, Verdict, judge, quantile, runs_of
from tests.soak.faults import Faults, Wrong
from tests.soak.rows import SECOND, Row, all_rows
from tests.soak.stage import Stage, staged

LOOK = 5.0
"""Seconds between two looks at how it goes."""

STILL = 60.0
"""Seconds without any run after which it is given up."""

SETTLES = 120.0
"""Seconds in which all is run after the last fault."""


def main(arguments: Sequence[str]) -> int:
    """Soak as the arguments say; return 1 if anything is wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=20)
    options.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options.add_argument("--folder", type=Path, help="for logs; kept. Default: /tmp")
    chosen = options.parse_args(arguments)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="beatd-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    wrong = soak(chosen.minutes, chosen.seed, folder)
    if wrong:
        print(f"again: make soak MINUTES={chosen.minutes:g} SEED={chosen.seed}")
    return 1 if wrong else 0


def soak(minutes: float, seed: int, folder: Path) -> list[str]:
    """Soak for so long in an empty folder; return what is wrong, after saying it."""
    print(f"soak of {minutes:g} min, seed {seed}, {_load()}; logs: {folder}")
    length = int(minutes * 60)
    rows = all_rows(int(time.time() * SECOND), length)
    with ExitStack() as stack:
        stage = staged(folder, rows, stack)
        faults = Faults(stage, random.Random(seed))
        # A term has begun, and with it the history of each entry.
        begin = int((time.time() + 2) * SECOND)
        try:
            _endure(stage, faults, time.monotonic() + length)
            end = int(time.time()) * SECOND
            faults.end_all()
            verdict = _settled(stage, begin, end)
            _stop(stage)
        except (Wrong, AssertionError) as error:
            print(f"STOPPED: {error}")
            return [str(error)]
    _report(stage, faults, verdict)
    return verdict.wrong


def _endure(stage: Stage, faults: Faults, until: float) -> None:
    """Do faults until then; raise Wrong as soon as anything is."""
    now = time.monotonic()
    fault_at, look_at = now + 3, now
    while now < until:
        if now >= fault_at:
            fault_at = now + faults.next()
        if now >= look_at:
            look_at = now + LOOK
            _look(stage)
        faults.end_due()
        time.sleep(0.05)
        now = time.monotonic()


def _look(stage: Stage) -> None:
    """Raise Wrong if a process ends by itself, nothing runs, or a slot comes twice."""
    for host in stage.hosts:
        process = host.beatd.process
        status = process.poll() if process else None
        if status is not None and not host.is_down:
            raise Wrong(f"{host.name} ended by itself, with status {status}")
        if host.beatd.said("Traceback (most recent call last)"):
            raise Wrong(f"{host.name} has a traceback in its log")
    journal = stage.journal()
    latest = max((line[5] for line in journal), default=time.time())
    if time.time() - latest > STILL:
        raise Wrong(f"nothing has run for {STILL:.0f} s")
    firsts = Counter(line[3] for line in journal if line[0] == "begin" and not line[6])
    if doubled := [id for id, number in firsts.items() if number > 1]:
        raise Wrong(f"sent twice: {doubled[:5]}")


def _settled(stage: Stage, begin: int, end: int) -> Verdict:
    """Wait until every slot is decided and has run; return what is wrong then."""
    deadline = time.monotonic() + SETTLES
    while True:
        evidence, is_open = _evidence(stage, begin, end)
        if not is_open:
            return judge(evidence)
        if time.monotonic() > deadline:
            verdict = judge(evidence)
            verdict.wrong.insert(0, f"not settled in {SETTLES:.0f} s: {is_open}")
            return verdict
        time.sleep(LOOK)


def _evidence(stage: Stage, begin: int, end: int) -> tuple[Evidence, str]:
    """Return what there is to judge by, and what is still open, in words."""
    first, last = (_moment(at) for at in (begin - 60 * SECOND, end))
    audit = ["audit", "--json", "--slots", "--from", first, "--to", last]
    shown = stage.asked(*audit)
    if shown.returncode not in (0, 1):
        raise Wrong(f"beatd audit: {shown.stderr}")
    accounts = {
        entry["name"]: {
            round(one["slot_ts"] * SECOND): Account(
                one["what"], one["at_ts"], one["reason"] or ""
            )
            for one in entry.get("each", ())
        }
        for entry in json.loads(shown.stdout)["entries"]
    }
    told = _history(stage)
    _add_earlier(accounts, told, rows=[row for row in stage.rows if row.differs])
    ids = {(one.entry, one.first): one.id for one in told if one.id}
    states = stage.states([*ids.values()])
    journal = stage.journal()
    evidence = Evidence(
        stage.rows,
        begin,
        end,
        journal,
        accounts,
        states,
        ids,
        stage.hurts,
        stage.deployed,
    )
    runs = runs_of(journal)
    waiting = unended = 0
    for name, some in accounts.items():
        for slot, account in some.items():
            if begin <= slot <= end:
                waiting += account.what == "waiting"
                ran = any(run.end for run in runs.get(name, {}).get(slot, ()))
                is_revoked = states.get(ids.get((name, slot), "")) == "REVOKED"
                unended += account.what == "sent" and not (ran or is_revoked)
    is_open = f"{waiting} slots wait, {unended} runs" if waiting or unended else ""
    return evidence, is_open


class _Told(NamedTuple):
    """A record of the history."""

    entry: str
    first: int
    last: int
    account: Account
    id: str | None


def _history(stage: Stage) -> list[_Told]:
    """Return what the history says of slots, the oldest first."""
    shown = stage.asked("history", "--json", "--limit", "10000000")
    if shown.returncode:
        raise Wrong(f"beatd history: {shown.stderr}")
    return [
        _Told(
            one["entry"],
            round(one["slot_ts"] * SECOND),
            round(one["last_slot_ts"] * SECOND),
            Account(one["what"], one["at_ts"], one["reason"] or ""),
            one["task_id"],
        )
        for one in reversed(json.loads(shown.stdout)["runs"])
        if one["what"] in ("sent", "dropped", "uncertain")
    ]


def _add_earlier(
    accounts: dict[str, dict[int, Account]],
    told: Sequence[_Told],
    rows: Sequence[Row],
) -> None:
    """Add what became of slots of earlier schedules: an audit is of the present one."""
    lines = {row.name: [row.line, row.changed] for row in rows}
    for one in told:
        if not (known := lines.get(one.entry)):
            continue
        found = accounts.setdefault(one.entry, {})
        slots = {one.first}.union(
            *(line.slots(one.first, one.last) for line in known if line)
        )
        for slot in slots:
            found.setdefault(slot, one.account)


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at // SECOND, UTC):%Y-%m-%d %H:%M:%S}"


def _stop(stage: Stage) -> None:
    """Tell all to stop; raise Wrong for those that end otherwise than well."""
    for host in stage.hosts:
        host.beatd.send(signal.SIGTERM)
    for host in stage.hosts:
        if status := host.beatd.wait():
            raise Wrong(f"{host.name} ended with {status} when told to stop")
    _look_at_logs(stage)


def _look_at_logs(stage: Stage) -> None:
    for host in stage.hosts:
        if host.beatd.said("Traceback (most recent call last)"):
            raise Wrong(f"{host.name} has a traceback in its log")


def _report(stage: Stage, faults: Faults, verdict: Verdict) -> None:
    """Say what there was."""
    led = sum(host.beatd.said("leading, term") for host in stage.schedulers)
    gap = max((b - a for a, b in pairwise(sorted(verdict.sent))), default=0.0)
    parts = (("p50", 0.5), ("p99", 0.99), ("max", 1))
    late = ", ".join(f"{name} {quantile(verdict.late, p):.2f} s" for name, p in parts)
    print(f"slots       {verdict.slots:,}")
    for name, number in verdict.by_account.most_common():
        print(f"            {number:,} {name}")
    print(
        f"runs        {verdict.runs:,}, {verdict.again} of them of further deliveries;"
        f" {verdict.expired} expired"
    )
    print(f"faults      {faults.done.total()}")
    for name, number in faults.done.most_common():
        print(f"            {number} {name}")
    print(f"late        {late}")
    print(f"leaders     {led} terms; longest without an emission: {gap:.1f} s")
    print(f"load        {_load()}")
    print(f"wrong       {len(verdict.wrong)}")
    for words in verdict.wrong[:40]:
        print(f"            {words}")


def _load() -> str:
    return "load {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
