"""The messages of calls that are kept, for the scheduler to send."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beatd.app.publishing import after_publish, before_publish
from beatd.app.sending import message_of
from beatd.app.shapes import CallShapes
from beatd.instant import Instant
from beatd.message import Made, Sending


@dataclass(frozen=True, slots=True)
class CallRecorder:
    """Keeps messages instead of sending them, as the `producer` of a call's options.

    Receivers of `before_task_publish` and `after_task_publish` hear of them.
    """

    shapes: CallShapes
    retry_policy: Mapping[str, Any]
    """What the receivers see of it; here it has no use."""
    kept: list[Made] = field(default_factory=list)

    def keep(
        self, sending: Sending, task_id: str, now: Instant, *, registered: bool
    ) -> None:
        """Keep the message of a call."""
        shape, _ = self.shapes.of(sending, registered=registered)
        message = message_of(shape, sending, task_id, now, tag=task_id)
        policy = {**self.retry_policy, **(sending.options.get("retry_policy") or {})}
        message = before_publish(message, self.shapes.router, policy)
        self.kept.append(Made(message.message, message.route, task_id))
        after_publish(message)
