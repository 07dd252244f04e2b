"""Encodes and decodes the metas of runs, in the form that Celery's backends store."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beatd.errors import MessageError
from beatd.message.codec import compress, content_types, decompress, dumps, loads
from beatd.results.base import Meta, State, Stored
from beatd.results.chords import Ended
from beatd.results.exceptions import (
    carriable,
    exception_of,
    form_of,
    harmless,
    is_form,
    is_named_by_celery,
)

_COMPRESSED = b"\0celery-compressed\0"
"""Precedes the content type of the compression, another NUL and the data."""

_FIXED = (
    *("status", "result", "traceback", "children", "date_done"),
    *("group_id", "parent_id", "runtime", "task_id"),
)

_RAISED = (State.FAILURE, State.REVOKED, State.RETRY)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How results are written and read, by `result_serializer` and other settings."""

    serializer: str = "json"
    compression: str | None = None
    accept: tuple[str, ...] = ("json",)
    """Names of serializers; a result in another one is not read."""

    def store(self, meta: Meta | Stored) -> Stored:
        """Return a meta as it is stored; MessageError if it cannot be encoded."""
        if isinstance(meta, Stored):
            return meta
        return Stored(meta.task_id, meta.status, self.encode(meta))

    def encode(self, meta: Meta) -> bytes:
        """Return the bytes of a meta; MessageError if the value cannot be encoded."""
        return self.pack(self._fields(meta))

    def part(self, task_id: str, state: str, value: Any) -> bytes:
        """Return the bytes of a chord's part; MessageError as in `encode`."""
        return self.pack([1, task_id, str(state), self._result(value)])

    def read_part(self, data: bytes) -> Ended:
        """Undo `part`. Raises MessageError if that is not possible."""
        found = self.unpack(data)
        if not isinstance(found, list | tuple) or len(found) != 4:
            raise MessageError("it is no part of a chord")
        _, task_id, state, value = found
        return Ended(str(task_id), str(state), _value_of(str(state), value))

    def pack(self, value: Any) -> bytes:
        """Return the bytes of any value; MessageError if it cannot be encoded."""
        data = dumps(value, self.serializer).data
        if not self.compression:
            return data
        packed, kind = compress(data, self.compression)
        return b"%s%s\0%s" % (_COMPRESSED, kind.encode(), packed)

    def unpack(self, data: bytes) -> Any:
        """Undo `pack`. Raises MessageError if that is not possible or not accepted."""
        if data.startswith(_COMPRESSED):
            kind, _, data = data.removeprefix(_COMPRESSED).partition(b"\0")
            data = decompress(data, kind.decode("ascii", "replace"))
        (content_type,) = content_types([self.serializer])
        return loads(data, content_type, content_types(self.accept))

    def group(self, group_id: str, data: bytes) -> Any:
        """Return the ids of a group's runs that beatd or Celery has stored as `data`.

        Raises MessageError as `decode`.
        """
        found = self.unpack(data)
        if not isinstance(found, dict) or "result" not in found:
            raise MessageError(f"result of group {group_id}: it is no group of runs")
        return found["result"]

    def decode(self, task_id: str, data: bytes) -> Meta:
        """Return the meta that beatd or Celery has stored as `data`.

        Raises MessageError if `data` is no meta, or its serializer is not accepted.
        """
        try:
            return _meta(task_id, self.unpack(data))
        except MessageError as error:
            raise MessageError(f"result of task {task_id}: {error}") from error

    def _fields(self, meta: Meta) -> dict[str, Any]:
        done = meta.date_done
        return {
            "status": str(meta.status),
            "result": self._result(meta.result),
            "traceback": meta.traceback,
            "children": meta.children,
            "date_done": done.isoformat() if isinstance(done, datetime) else done,
            **({"group_id": meta.group_id} if meta.group_id else {}),
            **({"parent_id": meta.parent_id} if meta.parent_id else {}),
            **meta.extended,
            **({} if meta.runtime is None else {"runtime": meta.runtime}),
            "task_id": meta.task_id,
        }

    def _result(self, value: Any) -> Any:
        return self._exception(value) if isinstance(value, BaseException) else value

    def _exception(self, error: BaseException) -> Any:
        # Only pickle carries exceptions as they are. Exceptions for which Celery has a
        # class of its own go in the common form even then: its readers have no beatd.
        if self.serializer == "pickle" and not is_named_by_celery(error):
            carried = carriable(error)
            if carried:
                return carried
        return form_of(error, self._can_encode)

    def _can_encode(self, value: Any) -> bool:
        try:
            dumps(value, self.serializer)
        except MessageError:
            return False
        return True


def _meta(task_id: str, value: Any) -> Meta:
    if not isinstance(value, dict) or not isinstance(value.get("status"), str):
        raise MessageError("it is no task's result")
    status: str = value["status"]
    return Meta(
        task_id,
        status,
        _value_of(status, value.get("result")),
        value.get("traceback"),
        value.get("children") or [],
        value.get("date_done"),
        value.get("group_id"),
        value.get("parent_id"),
        {key: value[key] for key in value if key not in _FIXED},
        _length_in(value.get("runtime")),
    )


def _length_in(stored: Any) -> float | None:
    """Return the seconds that a meta tells; None for what are none."""
    is_number = isinstance(stored, int | float) and not isinstance(stored, bool)
    return float(stored) if is_number and 0 <= stored < float("inf") else None


def _value_of(status: str, result: Any) -> Any:
    if status in _RAISED and is_form(result):
        return exception_of(result)
    # Only pickle carries exceptions as they are.
    return harmless(result) if isinstance(result, BaseException) else result
