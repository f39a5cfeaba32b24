"""Which runs have lost their owner: decided from what was seen, never from a single look."""

from collections.abc import Iterable

__all__ = ["Absences", "Sight"]

Sight = tuple[str, int]
"""A run and the attempt that its row names."""


class Absences:
    """Since when leases have been away, in monotonic seconds. Does no input or output.

    A run is lost once its lease was away for one whole `period_s` in which Redis answered every look. Looks
    that are further apart than `max_gap_s` are no unbroken sight: this process itself may have been stalled.
    """

    def __init__(self, *, period_s: float, max_gap_s: float) -> None:
        self._period_s = period_s
        self._max_gap_s = max_gap_s
        self._since: dict[Sight, float] = {}
        self._looked_at: float | None = None

    def broke(self) -> None:
        """Redis did not answer: whoever seems to be away may just not have been able to say otherwise."""
        self._since.clear()
        self._looked_at = None

    def saw(self, absent: Iterable[Sight], *, now: float) -> list[Sight]:
        """These, and no others, are without a lease; gives those that are lost."""
        if self._looked_at is None or now - self._looked_at > self._max_gap_s:
            self._since.clear()
        self._looked_at = now
        self._since = {sight: self._since.get(sight, now) for sight in absent}
        return [sight for sight, since in self._since.items() if now - since >= self._period_s]
