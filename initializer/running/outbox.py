"""What a run has said and the journal does not have yet: numbered, bounded, made whole again after a loss.

Log lines and progress of a tick wait without a number; `cut` turns them into events. So what gives way
under pressure leaves a count and never a hole.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from enum import Enum, auto
from itertools import accumulate

from initializer.model.events import (
    Event,
    EventId,
    Log,
    Progressed,
    Reason,
    Started,
    attempt_of,
    encode_event,
    index_of,
)
from initializer.running.ownership import OwnershipLost

__all__ = [
    "HEAD_LINES",
    "MAX_BATCH_CHARACTERS",
    "MAX_BATCH_EVENTS",
    "MAX_LOG_CHARACTERS",
    "TAIL_LINES",
    "Outbox",
    "Refusal",
]

HEAD_LINES = TAIL_LINES = 200
"""Of the lines of one tick the first 200 and the last 200 are kept; those between give way."""
MAX_LOG_CHARACTERS = 8 * 1024 * 1024
"""The log, with line ends, that a try may put into its journal; of what follows a step keeps `TAIL_LINES`.

Nobody but people begins another try, so a journal stays bounded too.
"""
MAX_BATCH_EVENTS = 500
MAX_BATCH_CHARACTERS = 512 * 1024
"""Of log: what an append is to carry in time over a slow link too. One event may have more."""


class Refusal(Enum):
    """What a refused append means for its writer."""

    ARRIVED = auto()
    """The events had arrived; only the answer was lost."""
    LOST = auto()
    """The journal has lost events; they are pending again."""
    FENCED = auto()
    """A newer attempt writes: stop at once."""
    UNKNOWN = auto()
    """The journal holds events this writer has not seen: read it anew."""


class Outbox:
    """The events of one attempt on their way to the journal. Does no input or output.

    `history` is what the journal held when the attempt began. Where that has events of a newer one,
    `OwnershipLost` is raised: behind those this one adds nothing, whatever it has for a proof. `digest` is a
    chain over all events so far: blake2b (16 bytes) of the digest before and the event's JSON.
    """

    def __init__(self, *, attempt: int, history: Iterable[Event] = ()) -> None:
        self.digest = b""
        self._attempt = attempt
        self._events: list[Event] = []
        self._acknowledged = 0  # how many of _events the journal has
        self._logs: dict[str, _PendingLog] = {}
        self._line_numbers: dict[str, int] = {}  # step -> number of its next line
        self._log_characters = 0
        self._report: Progressed | None = None
        for event in history:
            self._add(event)
        self._acknowledged = len(self._events)
        if self.tail is not None and attempt_of(self.tail) > attempt:
            raise OwnershipLost(f"the journal has a newer attempt than {attempt}")

    @property
    def tail(self) -> EventId | None:
        """The id of the last numbered event."""
        return self._events[-1].id if self._events else None

    @property
    def has_pending(self) -> bool:
        """Whether a cut would give events, or numbered ones wait for the journal."""
        return self.is_unacknowledged or self._report is not None or any(self._logs.values())

    @property
    def is_unacknowledged(self) -> bool:
        """Whether numbered events wait for the journal."""
        return self._acknowledged < len(self._events)

    def log(self, step: str, line: str) -> None:
        """Take one line; memory stays bounded at any rate."""
        pending = self._logs.get(step)
        if pending is None:
            pending = self._logs[step] = _PendingLog()
        pending.add(line)

    def report(self, event: Progressed) -> None:
        """Take a progress; of several in one tick the last one counts."""
        self._report = event

    def cut(self, at: datetime) -> list[Event]:
        """Number what waits: the lines of each step, then the last progress. Gives the new events."""
        events: list[Event] = []
        for step, pending in self._logs.items():
            if self._log_characters < MAX_LOG_CHARACTERS:
                events += self._take_log(step, pending, at)
            else:
                pending.hold_tail()
        if self._report is not None:
            events.append(self._number(self._report))
            self._report = None
        return events

    def put(self, event: Event) -> list[Event]:
        """Number a boundary event behind all that waits. Gives the new events."""
        return [*self.cut(event.at), self._number(event)]

    def end_step(self, step: str, at: datetime) -> list[Event]:
        """Let out the tail of a step's log that was held back over the cap. Gives the new events."""
        events = self.cut(at)
        pending = self._logs.pop(step, None)
        if pending is not None:
            events += self._take_log(step, pending, at)
        return events

    def batch(self) -> tuple[EventId | None, list[Event]]:
        """The tail that the journal should have, and what to append behind it: all that waits, or a piece."""
        first = self._acknowledged
        expected = self._events[first - 1].id if first else None
        events = self._events[first : first + MAX_BATCH_EVENTS]
        sizes = accumulate(map(_log_characters, events))
        count = sum(1 for size in sizes if size <= MAX_BATCH_CHARACTERS)
        return expected, events[: max(1, count)]

    def acknowledge(self, tail: EventId) -> None:
        """The journal has everything up to `tail`."""
        self._acknowledged = max(self._acknowledged, index_of(tail))

    def is_lost_behind(self, tail: EventId | None) -> bool:
        """Whether a journal that ends at `tail` lacks what it had acknowledged."""
        return (index_of(tail) if tail else 0) < self._acknowledged

    def refused(self, tail: EventId | None) -> Refusal:
        """An append was refused and the journal ends at `tail`: decide, and make a loss pending again."""
        index = index_of(tail) if tail else 0
        if tail and attempt_of(tail) > self._attempt:
            return Refusal.FENCED
        if tail and (index > len(self._events) or self._events[index - 1].id != tail):
            return Refusal.UNKNOWN
        is_loss = index < self._acknowledged
        self._acknowledged = index
        return Refusal.LOST if is_loss else Refusal.ARRIVED

    def _number(self, draft: Event) -> Event:
        event = draft.numbered(self._attempt, len(self._events) + 1)
        self._add(event)
        return event

    def _add(self, event: Event) -> None:
        self.digest = hashlib.blake2b(self.digest + encode_event(event), digest_size=16).digest()
        self._events.append(event)  # behind the line that raises where an event is no JSON
        match event:
            case Log(step=step, first=first, lines=lines):
                self._line_numbers[step] = first + len(lines)
                self._log_characters += _log_characters(event)
            case Started(reason=Reason.RETRY):
                self._log_characters = 0
            case Started(reason=Reason.RESTART):
                self._log_characters = 0
                self._line_numbers.clear()

    def _take_log(self, step: str, pending: "_PendingLog", at: datetime) -> list[Event]:
        if not pending:
            return []
        first = self._line_numbers.get(step, 1)
        return [self._number(log) for log in pending.take(step, first, at)]


def _log_characters(event: Event) -> int:
    return sum(len(line) + 1 for line in event.lines) if isinstance(event, Log) else 0


class _PendingLog:
    """Lines of one step without a number: a head and a tail; what lay between them is counted."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._dropped = 0
        self._tail: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._head or self._tail)

    def add(self, line: str) -> None:
        if len(self._head) < HEAD_LINES and not self._tail:
            self._head.append(line)
            return
        if len(self._tail) == TAIL_LINES:
            self._tail.popleft()
            self._dropped += 1
        self._tail.append(line)

    def hold_tail(self) -> None:
        """Give up the head: only the last lines will be kept."""
        if self._head:
            lines = [*self._head, *self._tail]
            self._dropped += max(0, len(lines) - TAIL_LINES)
            self._head, self._tail = [], deque(lines[-TAIL_LINES:])

    def take(self, step: str, first: int, at: datetime) -> list[Log]:
        """One event, or two where lines were dropped between the head and the tail."""
        head, dropped, tail = tuple(self._head), self._dropped, tuple(self._tail)
        self._head, self._dropped, self._tail = [], 0, deque()
        if not dropped:
            return [Log(at=at, step=step, first=first, lines=head + tail)]
        after_head = first + len(head)
        logs = [Log(at=at, step=step, first=first, lines=head)] if head else []
        return [*logs, Log(at=at, step=step, first=after_head + dropped, lines=tail, dropped=dropped)]
