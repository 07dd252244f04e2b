"""What messages of the same calls have in common, made once."""

from collections.abc import Mapping
from datetime import UTC
from functools import lru_cache
from typing import Any, NamedTuple

from beatd.message import MessageFormat, Sending
from beatd.message.shape import Shape, shape_for, shape_key
from beatd.routing import Queue, Router


class CallShape(NamedTuple):
    """The shape of a call's messages, and the queue that is declared for them."""

    shape: Shape
    queue: Queue


class CallShapes:
    """Shapes of calls in one format; those of one task with equal options share one."""

    def __init__(self, format: MessageFormat, router: Router) -> None:
        self._format = format
        self.router = router
        self._shared = lru_cache(maxsize=1024)(self._of_key)

    def of(self, sending: Sending, *, registered: bool) -> CallShape:
        """Return the shape of a call; `registered` says that its task is known here.

        The shape may not have the call's own `task_id`: the message is completed with
        that. Raises MessageError for options that no message can have.
        """
        if self.router.is_fixed:
            options = sending.options
            own_id = options.get("task_id")
            if isinstance(own_id, str) and own_id.isascii():
                options = {k: v for k, v in options.items() if k != "task_id"}
            try:
                return self._shared(sending.task, shape_key(options), registered)
            except TypeError:  # some option is a list or a dict
                pass
        return self._new(sending, registered)

    def _of_key(
        self, task: str, key: tuple[tuple[str, Any, str], ...], registered: bool
    ) -> CallShape:
        options = {name: value for name, value, _ in key}
        return self._new(Sending(task, (), {}, options), registered)

    def _new(self, sending: Sending, registered: bool) -> CallShape:
        given: Mapping[str, Any] = sending.options
        options, route = self.router.routed(
            sending.task, given, sending.args, sending.kwargs
        )
        shape = shape_for(
            options, sending.task, self._format, route, registered, False, UTC
        )
        return CallShape(shape, self.router.declares(given))
