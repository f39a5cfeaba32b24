"""How often something is done at most: at once after a rest, then in an even beat."""

__all__ = ["Pace"]


class Pace:
    """Gives the pause between turns. An interval of 0 has none.

    The pause is reckoned to the beat, not from the end of a turn, and a turn that comes late is made up for
    by the next: where something new comes as often as it may be shown, all that is late would else stay late,
    and add up to a whole interval. So after a rest two turns may follow each other at once.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = 0.0

    def begin(self, now_s: float) -> None:
        """A turn begins, by a monotonic clock."""
        self._next_s = max(self._next_s, now_s - self._interval_s) + self._interval_s

    def pause_s(self, now_s: float) -> float:
        """How long to wait for the next turn."""
        return max(0.0, self._next_s - now_s)
