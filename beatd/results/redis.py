"""Results in Redis, under Celery's keys and in its form.

`celery-task-meta-<task id>` is the key of a run's meta, and also the channel on which
each of its states is published; clients wait there. The keys of a chord begin with
`celery-taskset-meta-<group id>`: chord_join.lua.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha1
from importlib import resources
from typing import Any, NamedTuple

from beatd.background import Faults, do_in_halves
from beatd.brokers.items import Forbidden
from beatd.brokers.redis import needs
from beatd.brokers.redis.failover import SMALLEST_LARGEST, Server, too_large
from beatd.brokers.redis.listening import SILENCE, Bell, ChannelListener
from beatd.clock import Clock, SystemClock
from beatd.errors import (
    BrokerUnavailable,
    ItemRefused,
    MessageError,
    ResultRefused,
    ResultUnavailable,
)
from beatd.event_log import EventLog
from beatd.instant import SECOND, Span
from beatd.message import Chord
from beatd.results.base import READY_STATES, Lifetime, Meta, State, Stored
from beatd.results.chords import ChordTimes, Joined, Part
from beatd.results.encoding import Encoding
from beatd.routing import Queue
from beatd.text import counted

tell = EventLog(__name__)

KEY = "celery-task-meta-"
GROUP_KEY = "celery-taskset-meta-"

BATCH = 500
"""Values that are stored in one step; Redis serves no other client meanwhile."""

LARGEST_BATCH = 16 * 1024 * 1024
"""Bytes of such values, where there is more than one."""


class RedisResults:
    """Results on one Redis or Valkey server; any thread may use them.

    `options` are those of `result_backend_transport_options` and of connections; `tls`
    is `redis_backend_use_ssl`. It connects with the first request.
    """

    def __init__(
        self,
        url: str,
        *,
        encoding: Encoding,
        lifetime: Lifetime,
        chord_times: ChordTimes | None = None,
        options: Mapping[str, Any] | None = None,
        tls: bool | Mapping[str, Any] = False,
        clock: Clock | None = None,
    ) -> None:
        options = options or {}
        self._server = Server([url], options, tls)
        self._unheard = Faults()
        self._encoding = encoding
        self._lifetime = lifetime
        self._clock = clock or SystemClock()
        self._chord_times = chord_times or ChordTimes()
        ordered = options.get("result_chord_ordered", True)
        self._chord_form = "set" if ordered else "list"
        prefix = _prefix(options.get("global_keyprefix") or "")
        self._prefix = prefix + KEY
        self._group_prefix = prefix + GROUP_KEY
        register = self._server.client.register_script
        self._store = register(_script("store"))
        self._join_chord = register(_script("chord_join"))
        self._end_chord = register(_script("chord_end"))

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        self._store_all(metas, self._is_final)

    def correct(self, metas: Sequence[Meta | Stored]) -> None:
        self._store_all(metas, lambda *_: False)

    def _store_all(
        self,
        metas: Sequence[Meta | Stored],
        is_final: Callable[[str, bytes], bool],
    ) -> None:
        left = [_Try(at, self._encoding.store(one)) for at, one in enumerate(metas)]
        with self._storing() as refuse:
            while left:
                again: list[_Try] = []

                def store(some: Sequence[_Try], again: list[_Try] = again) -> None:
                    again += self._try_to_store(some, is_final, refuse)

                for some in _in_parts(left):
                    do_in_halves(store, some, refuse)
                left = again

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        if not task_ids:
            return {}
        keys = [self._key(task_id) for task_id in task_ids]
        with self._answering():
            found = self._server.client.mget(keys)
        return {
            task_id: self._encoding.decode(task_id, data)
            for task_id, data in zip(task_ids, found, strict=True)
            if data is not None
        }

    def wait(self, task_id: str, timeout: Span | None) -> Meta | None:
        end = None if timeout is None else self._clock.elapsed() + timeout
        bell = Bell()
        news = ChannelListener(self._server, self._key(task_id), bell, self._clock)
        try:
            while True:
                with self._answering():
                    news.open()
                    # Earlier messages say no more than the value that is read next.
                    news.drain()
                meta = self.load([task_id]).get(task_id)
                if meta and meta.status in READY_STATES:
                    return meta
                left = SILENCE if end is None else end - self._clock.elapsed()
                if left <= 0:
                    return None
                news.wait(min(left, SILENCE))
        finally:
            news.close()
            bell.close()

    def forget(self, task_id: str) -> None:
        with self._answering():
            self._server.client.delete(self._key(task_id))

    def save_group(self, group_id: str, members: Any) -> None:
        data = self._encoding.pack({"result": members})
        ttl = self._lifetime.of(State.SUCCESS)
        with self._answering():
            self._check_size(data, "the ids of a group")
            seconds = None if ttl is None else max(1, ttl // SECOND)
            self._server.client.set(self._group_prefix + group_id, data, ex=seconds)

    def load_group(self, group_id: str) -> Any:
        with self._answering():
            data = self._server.client.get(self._group_prefix + group_id)
        return None if data is None else self._encoding.group(group_id, data)

    def forget_group(self, group_id: str) -> None:
        with self._answering():
            self._server.client.delete(self._group_prefix + group_id)

    @property
    def user(self) -> str:
        return self._server.present.user

    def forbidden(self, queues: Collection[Queue] = ()) -> list[Forbidden]:
        keys = {f"{one}check": f"{one}*" for one in (self._prefix, self._group_prefix)}
        heard = {f"{self._prefix}check": f"{self._prefix}*"}
        touch = ("DEL", needs.KEY)  # of keys that no run has
        need = needs.Need("results", needs.RESULTS, keys, heard, touch)
        return needs.forbidden(self._server, [need])

    def close(self) -> None:
        self._server.close()

    def begin_chords(self, chords: Sequence[Chord]) -> None:
        with self._storing() as refuse:
            do_in_halves(self._begin, list(enumerate(chords)), refuse)

    def _begin(self, chords: Sequence[tuple[int, Chord]]) -> None:
        seconds = self._chord_times.parts or None
        with self._server.answering() as client, client.pipeline() as pipe:
            for _, chord in chords:
                keys = self._group_keys(chord.group)
                # This is the claim of an earlier run under the same id.
                pipe.delete(keys[".c"])
                pipe.set(keys[".s"], chord.size, ex=seconds)
                if chord.shape is not None:
                    shape = self._encoding.pack({"result": chord.shape})
                    self._check_size(shape, "the shape of a chord's header")
                    pipe.set(keys[""], shape, ex=seconds)
            pipe.execute()

    def join_chords(self, parts: Sequence[Part]) -> list[Joined]:
        found: list[Joined] = []
        with self._storing() as refuse:
            for one in enumerate(parts):
                do_in_halves(lambda some: found.extend(self._join(some)), [one], refuse)
        return found

    def _join(self, parts: Sequence[tuple[int, Part]]) -> Iterator[Joined]:
        times = self._chord_times
        for _, part in parts:
            self._check_size(part.data, "a part of a chord")
            index = "+inf" if part.index is None else part.index
            of_part = [part.task_id, part.data, index, self._chord_form]
            of_times = [times.parts, times.shape, _claim(part), times.claim]
            keys = list(self._group_keys(part.group).values())
            with self._server.answering():
                answer = self._join_chord(keys, [*of_part, *of_times])
            if answer is not None:
                yield Joined(part, answer[1], answer[0])

    def end_chords(self, joined: Sequence[Joined]) -> None:
        with self._storing() as refuse:
            for one in enumerate(joined):
                do_in_halves(self._end, [one], refuse)

    def _end(self, joined: Sequence[tuple[int, Joined]]) -> None:
        for _, one in joined:
            keys = self._group_keys(one.part.group)
            named = [keys[suffix] for suffix in (".c", ".j", ".t", ".s", ".d")]
            with self._server.answering():
                self._end_chord(named, [_claim(one.part), self._chord_times.done])

    def _group_keys(self, group: str) -> dict[str, str]:
        suffixes = (".j", ".t", ".s", ".d", "", ".c")
        return {suffix: self._group_prefix + group + suffix for suffix in suffixes}

    def _key(self, task_id: str) -> str:
        return self._prefix + task_id

    def _try_to_store(
        self,
        batch: Sequence["_Try"],
        is_final: Callable[[str, bytes], bool],
        on_refused: Callable[["_Try", ItemRefused], object],
    ) -> list["_Try"]:
        """Store values whose keys are free or may be overwritten; return the others.

        Further tries are needed only while other states of the run are being stored.
        Raises ItemRefused, having done nothing, if a key of the batch is forbidden, or
        a value too large.
        """
        for one in batch:
            self._check_size(one.stored.data, "a result")
        keys = [self._key(one.stored.task_id) for one in batch]
        arguments = [
            argument
            for one in batch
            for argument in (one.stored.data, self._seconds(one.stored), one.old)
        ]
        with self._server.answering():
            kept = self._store(keys=keys, args=arguments)
        again = []
        for one, data in zip(batch, kept, strict=True):
            if isinstance(data, Exception):
                self._meet(data, partial(on_refused, one))
            elif isinstance(data, list):
                self._meet_unheard(data[0])
            elif data is not None and not is_final(one.stored.task_id, data):
                old = sha1(data, usedforsecurity=False).hexdigest()
                again.append(one._replace(old=old))
        return again

    def _meet(
        self, answer: Exception, on_refused: Callable[[ItemRefused], object]
    ) -> None:
        """Meet a refusal of one key; raise what concerns the whole server."""
        try:
            with self._server.answering():
                raise answer
        except ItemRefused as refusal:
            on_refused(refusal)

    def _meet_unheard(self, words: bytes) -> None:
        """Say that a result is stored, and that those who wait for it are not woken."""
        if number := self._unheard.meet():
            tell.warning(
                "results.unheard",
                "clients that wait are not woken (%s, stored all the same): %s",
                counted(number, "result"),
                self._server.refusal(words.decode()),
            )

    def _check_size(self, data: bytes, what: str) -> None:
        """Raise ItemRefused for what is so large that the server hangs up."""
        size = len(data)
        if size > SMALLEST_LARGEST and size > (largest := self._server.largest_text()):
            raise ItemRefused(too_large(size, largest, what))

    def _is_final(self, task_id: str, data: bytes) -> bool:
        try:
            return self._encoding.decode(task_id, data).status == State.SUCCESS
        except MessageError:  # nobody can read it
            return False

    def _seconds(self, stored: Stored) -> int:
        ttl = self._lifetime.of(stored.status)
        return 0 if ttl is None else max(1, ttl // SECOND)

    @contextmanager
    def _storing(self) -> Iterator[Callable[[tuple[Any, ...], ItemRefused], None]]:
        """Lend a function that notes a refusal by the place of the item at fault.

        What was noted is raised at the end.
        """
        refused: dict[int, str] = {}

        def refuse(one: tuple[Any, ...], refusal: ItemRefused) -> None:
            refused[one[0]] = str(refusal)

        with self._answering():
            yield refuse
        if refused:
            raise ResultRefused(refused)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            with self._server.answering():
                yield
        except BrokerUnavailable as error:
            raise ResultUnavailable(f"results: {error}") from error


class _Try(NamedTuple):
    """A value to store."""

    place: int
    """Its place among those that are to be stored."""
    stored: Stored
    old: str = ""
    """The SHA-1 of the value that it may overwrite; empty: none."""


def _in_parts(tries: Sequence[_Try]) -> Iterator[Sequence[_Try]]:
    """Yield the values in parts that are small enough for one request."""
    first = size = 0
    for at, one in enumerate(tries):
        length = len(one.stored.data)
        if at - first == BATCH or (at > first and size + length > LARGEST_BATCH):
            yield tries[first:at]
            first, size = at, 0
        size += length
    yield tries[first:]


def _prefix(prefix: str) -> str:
    """Return `global_keyprefix` with the separator that Celery puts behind it."""
    return prefix if not prefix or prefix[-1] in ":_-." else f"{prefix}_"


def _claim(part: Part) -> str:
    """Return the claim of a part; for copies of the part it is the same."""
    return f"{part.task_id}:{part.index}"


@cache
def _script(name: str) -> str:
    return (resources.files(__package__) / f"{name}.lua").read_text()
