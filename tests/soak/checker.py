"""Whether every slot of a soak was sent once, or dropped by a rule: by own reckoning.

It goes by what tasks wrote when they ran, by what was done to whom and when, and by the
arithmetic of `rows`. What `beatd audit` says is then held against that, slot by slot.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from tests.soak.rows import Line, Row, grid
from tests.soak.stage import Deployed, Hurt

SECOND = 1000

BEFORE, AFTER = 30 * SECOND, 3 * SECOND
"""Around a change of the config: which of both holds for a slot is not looked at."""

NEWS = 10.0
"""Seconds after a fault in which its consequences may come: leases and leads end."""

TOLD = 1.5
"""Seconds in which the end of a run is known to the scheduler, if nothing is wrong."""


class Account(NamedTuple):
    """What `beatd audit` says of a slot."""

    what: str
    at: float | None
    """When it was decided, in seconds since the epoch."""
    why: str


@dataclass
class Run:
    """One run, as the task wrote it; times are seconds since the epoch."""

    worker: str
    id: str
    again: bool
    """Whether the message was marked as delivered before."""
    begin: float
    end: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What a soak leaves; the soak counts from `begin` to `end`."""

    rows: Sequence[Row]
    begin: int
    end: int
    journal: Sequence[Sequence[Any]]
    accounts: Mapping[str, Mapping[int, Account]]
    """By entry and slot."""
    states: Mapping[str, str]
    """By id, the state of a run that was sent, as the results have it."""
    ids: Mapping[tuple[str, int], str]
    """By entry and slot, the id that the history has."""
    hurts: Sequence[Hurt]
    deployed: Sequence[Deployed]


@dataclass
class Verdict:
    """What was found."""

    wrong: list[str] = field(default_factory=list)
    slots: int = 0
    by_account: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    again: int = 0
    """Runs of messages that were delivered again, as their worker was hurt."""
    expired: int = 0
    late: list[float] = field(default_factory=list)
    """Of each slot that was sent, by how many seconds."""
    sent: list[float] = field(default_factory=list)
    """When."""


def judge(evidence: Evidence) -> Verdict:
    """Look at each slot of each row, and at each run."""
    return _Judge(evidence).verdict


class _Judge:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.verdict = Verdict()
        self.runs = runs_of(evidence.journal)
        for row in evidence.rows:
            self._row(row)
        self._foreign({row.name for row in evidence.rows})
        self.verdict.runs = sum(
            len(some) for of in self.runs.values() for some in of.values()
        )

    def _wrong(self, row: Row, slot: int, words: str) -> None:
        self.verdict.wrong.append(f"{row.name} {shown(slot)}: {words}")

    # Slots

    def _row(self, row: Row) -> None:
        evidence = self.evidence
        accounts = evidence.accounts.get(row.name, {})
        runs = self.runs.get(row.name, {})
        may, must = self._slots(row)
        told = {slot for slot in accounts if evidence.begin <= slot <= evidence.end}
        for slot in sorted(must - told):
            self._wrong(row, slot, "beatd audit does not know this slot")
        for slot in sorted(told - may):
            self._wrong(row, slot, "no slot by own reckoning, and beatd audit has it")
        for slot in sorted(runs.keys() - may):
            if evidence.begin <= slot <= evidence.end and not _is_first(row, slot, may):
                self._wrong(row, slot, "no slot by own reckoning, and it ran")
        for slot in sorted(must | (told & may)):
            account = accounts.get(slot)
            self.verdict.slots += 1
            if account is not None:
                self._account(row, slot, account, runs.get(slot, []))
        for slot, some in runs.items():
            self._of_one_slot(row, slot, some)
        if row.get("overlap"):
            self._together(row, runs)
        if most := row.get("max_runs"):
            self._number(row, runs, len(may), most)

    def _slots(self, row: Row) -> tuple[set[int], set[int]]:
        """Return the slots that there may be, and those that there must be."""
        evidence = self.evidence
        begin, end = evidence.begin, evidence.end
        if row.from_last:
            first = min(self.runs.get(row.name, {}), default=end)
            slots = {*grid(row.from_last, first)(begin, end)}
            return slots, slots
        plain = _of(row.line, begin, end)
        if not row.differs:
            if row.get("max_runs"):
                return plain, set()
            return plain, plain
        changed = _of(row.changed, begin, end)
        must = {slot for slot in plain if self._held(slot, is_changed=False)}
        must |= {slot for slot in changed if self._held(slot, is_changed=True)}
        may = {slot for slot in plain if not self._held(slot, is_changed=True)}
        may |= {slot for slot in changed if not self._held(slot, is_changed=False)}
        return may, must

    def _held(self, slot: int, *, is_changed: bool) -> bool:
        """Return whether this one of both configs held at a slot, for sure."""
        held = False
        for change in self.evidence.deployed:
            begin, end = change.begin * SECOND - BEFORE, change.end * SECOND + AFTER
            if begin <= slot <= end:
                return False
            if slot > end:
                held = change.is_changed
        return held is is_changed

    def _account(
        self, row: Row, slot: int, account: Account, runs: Sequence[Run]
    ) -> None:
        """Hold what `beatd audit` says of one slot against all else."""
        verdict = self.verdict
        name = f"dropped: {account.why}" if account.what == "dropped" else account.what
        verdict.by_account[name] += 1
        if account.what == "sent" and account.at is not None:
            verdict.late.append(account.at - slot / SECOND)
            verdict.sent.append(account.at)
            if not any(run.end for run in runs):
                self._not_run(row, slot, runs)
            if row.get("max_runs") is None and row.rests:
                self._paused(row, slot, account, was=False)
        elif account.what == "dropped" and account.at is not None:
            if runs:
                self._wrong(row, slot, f"it ran, and beatd audit says {name}")
            if not self._may_drop(row, slot, account):
                at = shown(int(account.at * SECOND))
                self._wrong(row, slot, f"{name} at {at}, which its rules do not allow")
        else:
            self._wrong(row, slot, f"beatd audit says {name}; {len(runs)} runs")

    def _not_run(self, row: Row, slot: int, runs: Sequence[Run]) -> None:
        state = self.evidence.states.get(self.evidence.ids.get((row.name, slot), ""))
        options = row.get("options", {})
        assert isinstance(options, dict)
        if state == "REVOKED" and "expires" in options and not runs:
            self.verdict.expired += 1
        else:
            words = f"sent, and {len(runs)} runs of it have begun and none has ended"
            self._wrong(row, slot, f"{words}; its state is {state}")

    def _may_drop(self, row: Row, slot: int, account: Account) -> bool:
        """Return whether the rules let a slot be dropped for this reason then."""
        assert account.at is not None
        at = account.at * SECOND
        match account.why:
            case "coalesced":
                later = len(_after(row, slot, int(at)))
                most = row.get("max_catchup", 1000)
                assert isinstance(most, int)
                return later >= (1 if row.get("coalesce", True) else most)
            case "misfire":
                grace = row.get("misfire_grace_time")
                return isinstance(grace, int) and at > slot + grace * SECOND
            case "paused":
                return self._paused(row, slot, account, was=True)
            case "overlap":
                return row.get("overlap") == "skip" and self._is_busy(row, slot, at)
            case "replaced":
                return row.differs and row.get("overlap") == "queue_one"
        return False

    def _paused(self, row: Row, slot: int, account: Account, *, was: bool) -> bool:
        """Return whether an entry may have been paused when its slot was decided.

        If it was not dropped though it was paused for sure, that is wrong.
        """
        assert account.at is not None
        decided = int(account.at * SECOND)
        changed, plain = (
            all(self._held(at, is_changed=which) for at in (slot, decided))
            for which in (True, False)
        )
        if not was and changed:
            self._wrong(row, slot, "sent, and its entry was paused")
        return row.rests and not plain

    def _is_busy(self, row: Row, slot: int, at: float) -> bool:
        """Return whether the run before a slot may have been going on at an instant."""
        runs, accounts = self.runs[row.name], self.evidence.accounts[row.name]
        sent = [
            one
            for one, account in accounts.items()
            if one < slot and account.what == "sent"
        ]
        if not sent:
            return False
        ends = [run.end for run in runs.get(max(sent), []) if run.end]
        if not ends:
            return True
        end = min(ends)
        return end + TOLD >= at / SECOND or self._was_hurt(None, end, at / SECOND)

    # Runs

    def _of_one_slot(self, row: Row, slot: int, runs: Sequence[Run]) -> None:
        """Look at the runs of one message: all but one are of further deliveries."""
        if len({run.id for run in runs}) > 1:
            self._wrong(row, slot, f"it has several ids: {runs}")
        if sum(not run.again for run in runs) > 1:
            self._wrong(row, slot, f"sent twice: {runs}")
        for one, other in pairwise(runs):
            self.verdict.again += 1
            # Who had it first may begin it last: it stood still meanwhile.
            span = one.begin - NEWS, other.begin
            if not any(self._was_hurt(who.worker, *span) for who in (one, other)):
                self._wrong(row, slot, f"run again, and nothing was wrong: {runs}")

    def _together(self, row: Row, runs: Mapping[int, Sequence[Run]]) -> None:
        """Look for runs of two slots at the same time, against the overlap rule.

        The run of a worker that was hurt ends with its lease, whatever it still does.
        """
        spans = sorted(
            (run.begin, run.end or run.begin, slot, run.worker)
            for slot, some in runs.items()
            for run in some
        )
        for one, other in pairwise(spans):
            if one[2] == other[2] or other[0] >= one[1]:
                continue
            first = min(run.begin for run in runs[one[2]])
            if not self._was_hurt(one[3], first - NEWS, other[0]):
                words = f"runs while the run of {shown(one[2])} goes on"
                self._wrong(row, other[2], f"{words}: {one}, {other}")

    def _number(
        self, row: Row, runs: Mapping[int, object], slots: int, most: object
    ) -> None:
        """Look at the runs of an entry that ends after so many of its slots."""
        assert isinstance(most, int)
        if not min(most, slots - 1) <= len(runs) <= most:
            self._wrong(row, 0, f"it ran {len(runs)} times, and its max_runs is {most}")
        periods = {after - before for before, after in pairwise(sorted(runs))}
        if len(periods) > 1:
            self._wrong(row, 0, f"its runs are not one after the other: {sorted(runs)}")

    def _was_hurt(self, worker: str | None, begin: float, end: float) -> bool:
        """Return whether a worker, any if None, or Redis was at fault in between."""
        return any(
            (worker is None or hurt.who in (worker, "redis"))
            and hurt.begin <= end
            and hurt.end + NEWS >= begin
            for hurt in self.evidence.hurts
        )

    def _foreign(self, names: set[str]) -> None:
        self.verdict.wrong += [
            f"{name}: {len(runs)} slots ran, and there is no such entry"
            for name, runs in self.runs.items()
            if name not in names
        ]


def runs_of(journal: Iterable[Sequence[Any]]) -> dict[str, dict[int, list[Run]]]:
    """Return by entry and slot the runs that tasks wrote down, in order."""
    runs: dict[str, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for word, entry, text, id, worker, at, again in journal:
        slot = round(datetime.fromisoformat(text).timestamp() * SECOND)
        of = runs[entry][slot]
        if word == "begin":
            of.append(Run(worker, id, again, at))
        else:
            # The same message may run on several workers at once.
            begun = [run for run in of if run.worker == worker and run.end is None]
            begun[-1].end = at
    return {entry: dict(some) for entry, some in runs.items()}


def _of(line: Line | None, begin: int, end: int) -> set[int]:
    return set(line.slots(begin, end)) if line else set()


def _after(row: Row, slot: int, last: int) -> set[int]:
    """Return the slots after one, by either config."""
    if row.from_last:
        return {*grid(row.from_last, slot)(slot + 1, last)}
    return _of(row.line, slot + 1, last) | _of(row.changed, slot + 1, last)


def _is_first(row: Row, slot: int, may: set[int]) -> bool:
    """Return whether this is the run at the first start: it is before all slots."""
    return bool(row.get("run_on_start")) and slot < min(may)


def shown(slot: int) -> str:
    """Return an instant for people."""
    return f"{datetime.fromtimestamp(slot / SECOND, UTC):%H:%M:%S.%f}"[:-3]


def quantile(values: Iterable[float], part: float) -> float:
    """Return the value that this part of all does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0
