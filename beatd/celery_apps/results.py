"""Has Celery store the ends of runs that only the worker's loop knows."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from beatd.celery_apps.requests import has_own_request, tell_raised, tell_time_limit
from beatd.celery_apps.runner import info_of, request_of, send_task_failure
from beatd.errors import ResultRefused, ResultUnavailable
from beatd.event_log import EventLog
from beatd.message import Call, Limits
from beatd.results.base import Meta, State, Stored
from beatd.results.chords import Joined
from beatd.results.exceptions import form_of
from beatd.runs.chords import Failed, Recorded, Unsent, call_of
from beatd.runs.report import Bookkeeping
from beatd.text import one_line

tell = EventLog(__name__)


@dataclass(frozen=True, slots=True)
class CeleryResults:
    """Stores the results of runs that the loop ends, in Celery's own backend."""

    app: Any

    def store(self, metas: Sequence[Meta | Stored]) -> None:
        """Store these results, in order.

        Raises ResultUnavailable; and ResultRefused, once all others are stored, if the
        backend refuses some of them.
        """
        refused: dict[int, str] = {}
        for place, meta in enumerate(metas):
            assert isinstance(meta, Meta)  # a report of the runner has nothing to store
            if reason := self._refusal(meta):
                refused[place] = reason
        if refused:
            raise ResultRefused(refused)

    def correct(self, metas: Sequence[Meta | Stored]) -> None:
        """Store these; what Celery's backend takes for final stays."""
        self.store(metas)

    def load(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """Return the metas of runs, by id; a run that is not known is left out.

        Raises ResultUnavailable.
        """
        try:
            found = {one: self.app.backend.get_task_meta(one) for one in task_ids}
        except Exception as error:  # as in `_try_to_store`
            raise ResultUnavailable(_words_of(error)) from error
        return {
            task_id: Meta(task_id, meta["status"], meta.get("result"))
            for task_id, meta in found.items()
            if meta["status"] != State.PENDING
        }

    def _refusal(self, meta: Meta) -> str:
        """Store a result; return why it is refused while others are not, else "".

        The errors of Celery's backends do not tell: that of no run is stored, too.
        """
        if not self._try_to_store(meta):
            return ""
        probe = Meta(str(uuid.uuid4()), State.STARTED)
        if fault := self._try_to_store(probe):
            raise ResultUnavailable(fault)
        with suppress(Exception):  # not all backends can: it expires there
            self.app.backend.forget(probe.task_id)
        return self._try_to_store(meta)

    def _try_to_store(self, meta: Meta) -> str:
        """Return why the backend did not store a result, empty if it did.

        Raises ResultUnavailable when Celery itself takes the backend for away.
        """
        try:
            self._store(meta)
        except Exception as error:  # each of Celery's backends has its own
            if self.app.backend.exception_safe_to_retry(error):
                raise ResultUnavailable(_words_of(error)) from error
            return _words_of(error)
        return ""

    def _store(self, meta: Meta) -> None:
        from celery.app.task import Context

        extended, call = meta.extended, meta.call
        if call:
            told = request_of(call, extended["worker"], again=False)
            request = Context(told, args=call.args, kwargs=call.kwargs)
        else:
            request = Context(
                id=meta.task_id,
                group=meta.group_id,
                parent_id=meta.parent_id,
                task=extended.get("name"),
                retries=extended.get("retries"),
                hostname=extended.get("worker"),
                delivery_info={"routing_key": extended.get("queue")},
            )
        result = meta.result
        if isinstance(result, BaseException):
            result = _as_celerys(result)
        self.app.backend.store_result(
            meta.task_id, result, meta.status, meta.traceback, request=request
        )


@dataclass(frozen=True, slots=True)
class CeleryChordKeeper:
    """Has Celery act on runs that failed outside of its tracer, or never began."""

    app: Any
    limits: Limits
    hostname: str

    def record_end(
        self, message: bytes, end: Bookkeeping | Failed | Unsent
    ) -> Recorded:
        """Have errbacks called, and chords counted, by the result backend's own code.

        The backend itself retries for a while. What it raises then is only logged: some
        errors never go away.
        """
        call = call_of(message, self.limits) if isinstance(end, Failed) else None
        if isinstance(end, Failed) and call:
            try:
                self._follow(call, end)
            except Exception:  # of the backend, or of the user's errbacks
                words = "Celery could not tell the clients that wait for %s"
                task_id = one_line(call.envelope.id)
                tell.exception("task.unfollowed", words, task_id)
        return Recorded([], [])

    def forget(self, joined: Sequence[Joined]) -> None:
        """Do nothing: Celery itself counts chords and forgets them."""

    def _follow(self, call: Call, end: Failed) -> None:
        from celery.app.task import Context

        backend, task_id = self.app.backend, call.envelope.id
        fields = request_of(call, self.hostname, again=False)
        request = Context(fields, args=call.args, kwargs=call.kwargs)
        if end.state == State.REVOKED:
            why = str(end.error)
            backend.mark_as_revoked(task_id, why, request=request, store_result=False)
        else:
            error = _as_celerys(end.error)
            # The later steps of its chain fail with this run.
            backend.mark_as_failure(
                task_id, error, request=request, store_result=end.keep
            )
            if task := self.app.tasks.get(call.envelope.task):
                _tell_failed(task, call, error)
                if has_own_request(task):
                    self._tell_request(call, error)

    def _tell_request(self, call: Call, error: BaseException) -> None:
        from celery.exceptions import TimeLimitExceeded

        if isinstance(error, TimeLimitExceeded):
            tell_time_limit(self.app, call, self.hostname, *error.args)
        else:
            tell_raised(self.app, call, self.hostname, info_of(error))


def _tell_failed(task: Any, call: Call, error: BaseException) -> None:
    """Call the hooks and receivers that Celery's worker calls when it ends a run.

    Celery's worker calls the same ones when the process of a run has died.
    """
    from celery.exceptions import TimeLimitExceeded

    args, kwargs, task_id = call.args, call.kwargs, call.envelope.id
    info = info_of(error)
    if isinstance(error, TimeLimitExceeded):
        task.on_failure(error, task_id, args, kwargs, info)
        task.after_return(State.FAILURE, error, task_id, args, kwargs, info)
    send_task_failure(task, call, error, info)


def _as_celerys(error: BaseException) -> Any:
    """Return Celery's exception that stands for an exception of beatd's own."""
    form = form_of(error, lambda _: True)
    kind = getattr(import_module(form["exc_module"]), form["exc_type"])
    return kind(*form["exc_message"])


def _words_of(error: Exception) -> str:
    """Return an error with its text, which redis-py leaves out of its repr."""
    return one_line(f"{type(error).__name__}: {error}")
