"""The journal in memory, for tests and benchmarks."""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

from initializer.journal.journal import AppendRefused, JournalRewritten, TakeEvents, are_taken, behind
from initializer.journal.signal import Signals
from initializer.model.events import Event, EventId
from initializer.model.pace import Pace

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """Keeps events until the process ends or they are retired."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}
        self._expires_at: dict[str, datetime] = {}
        self._signals = Signals()

    @property
    def is_away(self) -> bool:
        return False

    async def append(
        self,
        run: str,
        events: Sequence[Event],
        *,
        expected_tail: EventId | None,
        is_durable: bool = False,  # noqa: ARG002 - memory is as durable as it gets
    ) -> None:
        self._drop_if_due(run)
        held = self._events.get(run, [])
        tail = held[-1].id if held else None
        if tail != expected_tail:
            raise AppendRefused(expected=expected_tail, tail=tail)
        self._events.setdefault(run, []).extend(events)
        self._expires_at.pop(run, None)
        self._signals.wake(run)

    async def read(self, run: str, *, after: EventId = "") -> list[Event]:
        return self._read(run, after)

    async def follow(
        self, run: str, *, after: EventId = "", interval_s: float = 0, at_once: TakeEvents | None = None
    ) -> AsyncGenerator[list[Event], None]:
        pace = Pace(interval_s)

        def look() -> bool:
            nonlocal after
            try:
                events = self._read(run, after)
            except JournalRewritten:
                return False
            if (is_enough := are_taken(events, at_once)) and events:
                after = events[-1].id
            return is_enough

        with self._signals.listen(run) as signal:
            while True:
                events = self._read(run, after)
                yield events
                after = events[-1].id if events else after
                await signal.next_turn(pace, look if at_once else None)
                signal.clear()

    async def retire(self, run: str, *, keep_for: timedelta) -> None:
        self._expires_at[run] = datetime.now(UTC) + keep_for

    def lose(self, run: str, *, after: int = 0) -> None:
        """Forget the events above `after`, as a server does that comes back older or empty."""
        self._events[run] = [event for event in self._events.get(run, ()) if event.index <= after]

    def _read(self, run: str, after: EventId) -> list[Event]:
        self._drop_if_due(run)
        return behind(run, self._events.get(run, ()), after)

    def _drop_if_due(self, run: str) -> None:
        due = self._expires_at.get(run)
        if due is not None and due <= datetime.now(UTC):
            self._events.pop(run, None)
            self._expires_at.pop(run, None)
