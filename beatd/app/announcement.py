"""Events of an application's start, for functions that are connected to them."""

from collections.abc import Callable
from typing import Any

Hook = Callable[..., Any]


class Announcement:
    """An event of an application's start that functions can be connected to."""

    def __init__(self) -> None:
        self._hooks: list[Hook] = []

    def connect(self, hook: Hook) -> Hook:
        """Call `hook(sender=app)` when it happens; usable as a decorator."""
        self._hooks.append(hook)
        return hook

    def announce(self, app: object) -> None:
        """Call the hooks that were not called before."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook(sender=app)
