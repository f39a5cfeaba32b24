"""Whether an attempt may still change things: decided from its lease and its row, never from hope."""

import math
from enum import Enum, auto

from initializer.errors import InitializerError

__all__ = ["Decision", "Ownership", "OwnershipLost"]


class OwnershipLost(InitializerError):
    """A newer attempt owns the run; this one stops at once and changes nothing more."""


class Decision(Enum):
    """What to do before the next step or change on a forge."""

    PROCEED = auto()
    """The lease is fresh."""
    VERIFY = auto()
    """The lease cannot be proven: read the attempt from the row, then decide again."""
    STOP = auto()
    """The run is somebody else's."""


class Ownership:
    """One attempt's hold on its run, by observations and monotonic times in seconds. Does no input or output.

    With the embedded default the lock on the data folder is the lease: it lasts as long as the process,
    so `lease_s` is infinite. On servers a lease is renewed and runs out.
    """

    def __init__(self, *, attempt: int, lease_s: float, now: float) -> None:
        self.attempt = attempt
        self._lease_s = lease_s
        self._proven_at = now
        self._is_lost = False

    def renewed(self, *, now: float) -> None:
        """The lease was renewed. `now` is when that was asked for, not when the answer came."""
        self._proven_at = max(self._proven_at, now)

    def row_read(self, *, attempt: int, now: float) -> None:
        """The row named `attempt` when it was asked at `now`."""
        if attempt != self.attempt:
            self._is_lost = True
        else:
            self.renewed(now=now)

    def doubted(self) -> None:
        """The journal has forgotten who wrote last: only the row can tell whether to refill it."""
        self._proven_at = -math.inf

    def fenced(self) -> None:
        """The journal holds events of a newer attempt."""
        self._is_lost = True

    def decide(self, *, now: float) -> Decision:
        """What holds at `now`."""
        if self._is_lost:
            return Decision.STOP
        return Decision.PROCEED if now - self._proven_at < self._lease_s else Decision.VERIFY
