"""What is to become of a delivery, and of what follows from its run."""

from collections.abc import Callable, Sequence

import msgspec

from beatd.brokers.items import Act, Delivery, Effect, Outgoing
from beatd.errors import BeatdError
from beatd.results.base import Meta, Stored
from beatd.results.chords import Joined
from beatd.runs.chords import Failed, Unsent
from beatd.runs.report import Bookkeeping


class Continue(msgspec.Struct, frozen=True):
    """Leave the delivery as it is: the run goes on."""

    delivery: Delivery | None = None
    """Only where something else follows from its end: what is settled separately."""


class Settlement(msgspec.Struct, frozen=True):
    """What is to be stored of a run, and what then becomes of its delivery."""

    token: str
    act: Act | Continue
    kept: Meta | Stored | None = None
    sends: Sequence[Outgoing] = ()
    """Messages that follow from the run; sent when the result is stored."""
    end: Bookkeeping | Failed | Unsent | None = None
    """What is to be stored for other runs: chords, and calls that will not run."""
    after: Sequence[Outgoing] = ()
    """Messages that follow from `end`; sent when all is stored."""
    joined: Sequence[Joined] = ()
    """Chords whose bodies are among `after`."""
    fail: "Callable[[BeatdError, bool], Settlement] | None" = None
    """Return the settlement to have instead, for this reason, if something is refused.

    The second argument: whether a chord has counted the run already.
    """
    is_correction: bool = False
    """Whether `kept` is stored in place of a success, too."""
    tries: int = 0
    """How often the broker has refused the act."""
    effect: Effect = Effect.DONE
    """What became of the act, once it is settled; REFUSED: it is so for good, and the
    delivery stays in flight."""

    @property
    def all_sends(self) -> Sequence[Outgoing]:
        """Return all messages that are sent with the act."""
        return [*self.sends, *self.after] if self.after else self.sends
