"""The journal: the ordered events of one run, with one writer. Implementations stand beside this module."""

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from typing import Protocol

from initializer.errors import InitializerError
from initializer.model.events import Event, EventId, attempt_of, index_of

__all__ = [
    "AppendRefused",
    "Journal",
    "JournalDamaged",
    "JournalRewritten",
    "JournalUnavailable",
    "TakeEvents",
    "are_taken",
    "behind",
]

TakeEvents = Callable[[list[Event]], bool]
"""Takes events that a follower is given, one at least, or leaves them. It raises nothing."""


class AppendRefused(InitializerError):
    """The journal does not end where the writer believes. `tail` is its true last id, None if empty."""

    def __init__(self, *, expected: EventId | None, tail: EventId | None) -> None:
        super().__init__(f"the journal ends at {tail or 'nothing'}, not at {expected or 'nothing'}")
        self.expected, self.tail = expected, tail


class JournalUnavailable(InitializerError):
    """The journal cannot be written or read now; trying again may help."""


class JournalDamaged(InitializerError):
    """The journal holds something that is no event; trying again does not help."""


class JournalRewritten(InitializerError):
    """The journal lost what a reader was given, and another attempt wrote in its place: read it anew."""

    def __init__(self, run: str, lost: EventId) -> None:
        super().__init__(f"the journal of run {run} has another event in the place of {lost}")


def behind(run: str, events: Sequence[Event], after: EventId) -> list[Event]:
    """Those of a run's consecutive events that come behind `after`.

    Raises `JournalRewritten` where another event has its place, or will have it.
    """
    if not after:
        return list(events)
    index = index_of(after)
    rest = [event for event in events if event.index >= index]
    if rest and rest[0].index == index:
        is_rewritten = rest.pop(0).id != after
    else:
        is_rewritten = not rest and bool(events) and attempt_of(events[-1].id) > attempt_of(after)
    if is_rewritten:
        raise JournalRewritten(run, after)
    return rest


def are_taken(events: list[Event], at_once: TakeEvents | None) -> bool:
    """Whether a follower has taken events at once; where there are none, nothing is left to do."""
    return at_once is not None and (not events or at_once(events))


class Journal(Protocol):
    """Where the events of runs live. One writer a run; any number of readers."""

    @property
    def is_away(self) -> bool:
        """Whether it is known not to answer now."""

    async def append(
        self, run: str, events: Sequence[Event], *, expected_tail: EventId | None, is_durable: bool = False
    ) -> None:
        """Add events behind `expected_tail` (None: the first ones), all or none; followers hear of them.

        `is_durable` asks that they survive a loss of power. Takes back a `retire`. Raises
        `AppendRefused`, `JournalUnavailable` and `JournalDamaged`.
        """

    async def read(self, run: str, *, after: EventId = "") -> list[Event]:
        """The events behind `after`, in order; none where the journal is empty, gone, or not so far.

        Raises `JournalUnavailable`, `JournalDamaged` and `JournalRewritten`.
        """

    def follow(
        self, run: str, *, after: EventId = "", interval_s: float = 0, at_once: TakeEvents | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """The events behind `after`: first those there are (maybe none), then as they come.

        What comes within `interval_s` after that is given together, in an even beat (`model/pace.py`).
        Where a journal can, it gives what comes to `at_once` instead, while the follower waits, which spares
        a turn of its task; what that leaves is yielded.

        Does not end by itself: close it. Raises `JournalUnavailable`, `JournalDamaged` and
        `JournalRewritten`.
        """

    async def retire(self, run: str, *, keep_for: timedelta) -> None:
        """Let the journal go in `keep_for` from now, unless it is appended to before.

        Raises `JournalUnavailable`.
        """
