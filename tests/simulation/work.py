"""What must become of the messages that were queued, and what did.

It reads which runs there were, what followed from them, and which acts the broker did;
it shares no code with the worker or the broker.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Protocol

from tests.simulation.checker import Verdict

MINUTE = 60_000


class Run(Protocol):
    """One run of a message, as the pool saw it."""

    name: str
    worker: str
    message: bytes
    began: int
    ended: int | None


@dataclass(frozen=True)
class Work:
    """What a simulation leaves to be judged of its workers."""

    end: int
    queued: Sequence[tuple[int, bytes]]
    """When each message was queued, and the message."""
    runs: Sequence[Run]
    followed: Sequence[tuple[int, bytes]]
    """When each message came that follows from a run, and the run's name."""
    done: Sequence[tuple[int, str, bytes]]
    """When each act was done, its kind, and the message that it was for."""
    mistaken: Sequence[tuple[int, str, bytes]]
    """Those of these acts that were done to another message."""
    leases_ended: Sequence[tuple[int, str]]
    """When the broker found which worker's lease to be over."""
    ends: Sequence[tuple[int, str]]
    """When which worker died, or began to stop."""
    losses: Sequence[int]
    """When the broker's data were emptied or set back."""
    early: Set[str]
    """Entries whose messages are acknowledged before they run."""
    alone: Set[str]
    """Entries with overlap rules."""
    current: Mapping[str, str]
    """By entry, the id of the run that holds it up at the end."""

    def is_lost(self, first: int, last: int) -> bool:
        """Return whether the broker's data were lost in between."""
        return any(first <= loss <= last for loss in self.losses)


def judge_work(work: Work, verdict: Verdict) -> None:
    """Add to the verdict what is wrong with the runs."""
    verdict.runs = len(work.runs)
    _judge_messages(work, verdict)
    _judge_following(work, verdict)
    _judge_overlaps(work, verdict)
    for at, kind, message in work.mistaken:
        entry, key = _read(message)
        verdict.mistaken.append(f"{kind} of {entry} {key} at {at}")


def _judge_messages(work: Work, verdict: Verdict) -> None:
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(work.runs, key=lambda run: run.began):
        runs[_read(run.message)[1]].append(run)
    done: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for at, kind, message in work.done:
        done[_read(message)[1]].append((at, kind))
    times: Counter[str] = Counter(_read(message)[1] for _, message in work.queued)
    for at, message in work.queued:
        entry, key = _read(message)
        words = f"{entry} {key} queued at {at}"
        if at < work.end - 2 * MINUTE:
            _judge_end(work, runs[key], done[key], at, entry in work.early, verdict)
        if entry in work.early:
            begins = [when for when, kind in done[key] if kind == "Begin"]
            if _runs_too_often(work, runs[key], begins, times[key]):
                verdict.rerun.append(words)
    for entry, key in {_read(message) for _, message in work.queued}:
        if entry in work.early:
            verdict.again += max(len(runs[key]) - times[key], 0)
    for entry, key in work.current.items():
        ends = [at for at, kind in done[key] if kind in ("Acknowledge", "SetAside")]
        if ends and not work.is_lost(ends[0], work.end):
            verdict.held.append(f"{entry} {key} ended at {ends[0]}")


def _runs_too_often(
    work: Work, runs: Sequence[Run], begins: Sequence[int], times: int
) -> bool:
    """Return whether a message that is acknowledged early ran when it must not.

    Each run has an act `Begin` of its own that the broker did before. Such an act is
    done once for each time that the message was queued; once more only if data were
    lost since the act before it, and the message lay in its queue again. And no worker
    begins it twice: one that lives knows what it has begun.
    """
    if len({run.worker for run in runs}) < len(runs):
        return True
    own = [sum(at <= run.began for at in begins) > n for n, run in enumerate(runs)]
    again = sum(not work.is_lost(*both) for both in pairwise(begins))
    return not all(own) or again >= times


def _judge_end(
    work: Work,
    runs: Sequence[Run],
    done: Sequence[tuple[int, str]],
    at: int,
    is_early: bool,
    verdict: Verdict,
) -> None:
    """Look for the end of one message that was queued at this instant."""
    kinds = [kind for when, kind in done if when >= at]
    ran = any(run.began >= at and (run.ended or is_early) for run in runs)
    if "SetAside" in kinds or (ran and (is_early or "Acknowledge" in kinds)):
        return
    if work.is_lost(at, work.end):
        verdict.gone += 1
    elif is_early and "Begin" in kinds and (work.ends or work.leases_ended):
        verdict.cut += 1
    else:
        verdict.unrun.append(f"queued at {at}: {len(runs)} runs, {', '.join(kinds)}")


def _judge_following(work: Work, verdict: Verdict) -> None:
    came: dict[str, list[int]] = defaultdict(list)
    for at, name in work.followed:
        came[name.decode()].append(at)
    ends = {worker: at for at, worker in reversed(work.ends)}
    for run in work.runs:
        times = came[run.name]
        words = f"{run.name} ended at {run.ended}, messages at {times}"
        if len(times) > 1 and not work.is_lost(times[0], times[-1]):
            verdict.following.append(words)
        if times or run.ended is None or run.ended > work.end - 2 * MINUTE:
            continue
        if ends.get(run.worker, work.end) > run.ended + 2 * MINUTE:
            verdict.following.append(words)


def _judge_overlaps(work: Work, verdict: Verdict) -> None:
    ends = {worker: at for at, worker in work.ends}
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(work.runs, key=lambda run: run.began):
        entry, _ = _read(run.message)
        if entry in work.alone:
            runs[entry].append(run)
    queued = {_read(message)[1]: at for at, message in reversed(work.queued)}
    for entry, some in runs.items():
        for one, other in combinations(some, 2):
            ended = one.ended or ends.get(one.worker, work.end)
            if other.began >= ended or other.began > one.began + 10 * MINUTE:
                continue
            since = queued[_read(one.message)[1]]
            is_over = any(
                worker == one.worker and since <= at <= other.began
                for at, worker in work.leases_ended
            )
            if not (is_over or work.is_lost(since, other.began)):
                verdict.together.append(f"{entry}: {one.name}, {other.name}")


def _read(message: bytes) -> tuple[str, str]:
    """Return the entry and the id of a message, by its headers."""
    headers = json.loads(message)["headers"]
    return headers["beatd_entry"], headers["id"]
