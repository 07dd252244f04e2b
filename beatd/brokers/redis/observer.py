"""What lies in Redis and who takes it, for people: read, and nothing changed."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from beatd.brokers.current_runs import names_in
from beatd.brokers.items import (
    STANDBY_LASTS,
    Overview,
    QueueState,
    StandbyState,
    WorkerState,
)
from beatd.brokers.redis.wire import WireNames
from beatd.instant import SECOND, Instant

MOST_WORKERS = 1_000
"""Workers that are looked at, at most: those whose leases end last."""


class Observer:
    """Reads queues and leases at the present server, in three round trips."""

    def __init__(
        self,
        answers: Callable[[Collection[Sequence[Any]]], list[Any]],
        key: Callable[[str], str],
        wire: WireNames,
    ) -> None:
        """`answers` makes requests; the answer to a refused one is the error."""
        self._answers = answers
        self._key = key
        self._wire = wire

    def overview(self, queues: Collection[str]) -> Overview:
        """Return the state of these queues, and of all workers that have leases."""
        lists = self._wire.lists(queues)
        time, leases, told, dead, standbys, *lengths = self._answers(
            [
                ("TIME",),
                ("ZREVRANGE", self._key("workers"), 0, MOST_WORKERS - 1, "WITHSCORES"),
                ("HGETALL", self._key("queues")),
                ("HLEN", self._key("dead")),
                ("HGETALL", self._key("standbys")),
                *(("LLEN", one) for one in lists),
            ]
        )
        now = _server_time(time)
        return Overview(
            self._queues(lists, dict(zip(lists, lengths, strict=True)), queues),
            # Where the time may not be asked for, leases count as lasting on.
            self._workers(
                0 if _is_refused(time) else now, _fine(leases, []), _fine(told, {})
            ),
            _fine(dead, 0),
            [*_standbys(now, _fine(standbys, {}))],
        )

    def _queues(
        self, lists: dict[str, str], lengths: dict[str, Any], queues: Collection[str]
    ) -> list[QueueState]:
        total: Counter[str] = Counter()
        refused = {lists[one] for one, size in lengths.items() if _is_refused(size)}
        first: dict[str, str] = {}
        for one, queue in lists.items():
            if queue not in refused and lengths[one]:
                total[queue] += lengths[one]
                first.setdefault(queue, one)
        asked = [("LINDEX", one, -1) for one in first.values()]
        found = dict(zip(first, self._answers(asked) if asked else [], strict=True))
        return [
            QueueState(name, None)
            if name in refused
            else QueueState(name, total[name], _fine(found.get(name), None) or b"")
            for name in queues
        ]

    def _workers(
        self, now: Instant, leases: Sequence[bytes], told: dict[bytes, bytes]
    ) -> list[WorkerState]:
        names, ends = leases[::2], leases[1::2]
        # Names that are no text are none of ours.
        shown = [name.decode(errors="replace") for name in names]
        asked = [("HLEN", self._key(f"inflight:{name}")) for name in shown]
        held = self._answers(asked) if asked else []
        return sorted(
            (
                WorkerState(
                    name,
                    names_in(told.get(raw)),
                    _fine(number, 0),
                    max(round(min(float(end), 2**53)) - now, 0),
                )
                for raw, name, end, number in zip(names, shown, ends, held, strict=True)
            ),
            key=lambda one: one.name,
        )


def _server_time(answer: Any) -> Instant:
    """Return the server's time; the end of all time where it may not be asked for.

    So nothing is known of how long leases last on.
    """
    seconds, micros = _fine(answer, (2**53, 0))
    return int(seconds) * SECOND + int(micros) // 1000


def _standbys(now: Instant, marks: dict[bytes, bytes]) -> Iterator[StandbyState]:
    """Yield who has told that it stands by, as announced.lua writes it."""
    for name, mark in sorted(marks.items()):
        heard, _, digest = mark.decode(errors="replace").partition(" ")
        ago = now - int(heard) if heard.isdecimal() else STANDBY_LASTS + 1
        if ago <= STANDBY_LASTS:
            yield StandbyState(name.decode(errors="replace"), digest, max(ago, 0))


def _is_refused(answer: Any) -> bool:
    return isinstance(answer, Exception)


def _fine(answer: Any, otherwise: Any) -> Any:
    """Return an answer, or what stands for one that is an error."""
    return otherwise if _is_refused(answer) else answer
