"""Stamps: headers by which the calls of a canvas are known, given to all at once.

`signature.stamp(by="me")` labels calls, and what is linked to them. A visitor decides
call by call. Workers show stamps to tasks and to signals, and revoke calls by them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from beatd.message.options import listed


class StampingVisitor(ABC):
    """Decides of each part of a canvas which stamps it gets, as Celery's.

    Each method returns them by name. With the key `stamped_headers`, only those that it
    lists are stamps, and the others are options. `headers` are those given so far.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of one call."""
        return {}

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        """Return stamps for all calls of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:
        """Called when all calls of a group have their stamps."""
        return

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        """Return stamps for all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        """Called when all steps of a chain have their stamps."""
        return

    def on_chord_header_start(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return stamps for all calls of a chord's header, and for its body."""
        return self.on_group_start(sig, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """Called when all calls of a chord's header have their stamps."""
        self.on_group_end(sig, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return stamps for the body of a chord."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        """Return stamps for a callback."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:
        """Return stamps for an errback."""
        return {}


def stamped(
    given: Mapping[str, Any],
    more: Mapping[str, Any] | None,
    own: Mapping[str, Any],
    *,
    append: bool,
) -> dict[str, Any]:
    """Return stamps as options, with the names of them all as `stamped_headers`.

    `given` go before `more`, and these before those that are among a call's `own`
    options. With `append`, a stamp that is given twice has the values of both.
    """
    names = _names({**own, "stamped_headers": own.get("stamped_headers") or ()})
    kept = {name: own[name] for name in names if name in own}
    merged: dict[str, Any] = {}
    for some in (given, more or {}, kept):
        for name, value in some.items():
            merged[name] = _joined(merged, name, value, append)
    every = (*_names(given), *_names(more or {}), *names)
    return {**merged, "stamped_headers": [*dict.fromkeys(every)]}


def _names(headers: Mapping[str, Any]) -> Iterable[str]:
    """Return which of these are stamps: those that are listed, or else all."""
    return listed(headers.get("stamped_headers", list(headers))) or ()


def _joined(merged: Mapping[str, Any], name: str, value: Any, append: bool) -> Any:
    if name not in merged:
        return value
    before = merged[name]
    if append or (isinstance(before, list) and isinstance(value, list)):
        return [*(listed(before) or ()), *(listed(value) or ())]
    return before
