"""The whole log of a run, by step, for who asks for lines that a progress does not hold any more."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from initializer.model.events import Event, EventId, Log, Reason, Started, index_of, is_final
from initializer.model.progress import LogRow

__all__ = ["RunLog"]


class RunLog:
    """The log lines of a run's events up to `tail`, in `characters` characters; `is_ended` where it is final.

    A restart counts the lines of each step from 1 again: those before it are `earlier` ones.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.tail: EventId = ""
        self.is_ended = False
        self.characters = 0
        self.earlier: list[Log] = []
        self._logs: dict[str, list[Log]] = {}
        self._lasts: dict[str, list[int]] = {}  # the number of the last line of each of them
        self.extend(events)

    @property
    def steps(self) -> list[str]:
        """The steps that have logged, in the order in which they began to."""
        return list(self._logs)

    def extend(self, events: Iterable[Event]) -> None:
        """Take what comes behind `tail`; what is known already is passed over."""
        for event in events:
            if event.index <= index_of(self.tail):
                continue
            self.tail, self.is_ended = event.id, is_final(event)
            if isinstance(event, Started) and event.reason is Reason.RESTART:
                self.earlier += self.events()
                self._logs.clear()
                self._lasts.clear()
            elif isinstance(event, Log) and event.lines:
                self._logs.setdefault(event.step, []).append(event)
                self._lasts.setdefault(event.step, []).append(event.first + len(event.lines) - 1)
                self.characters += sum(map(len, event.lines))

    def last(self, step: str) -> int:
        """The number of a step's last line, 0 where there is none."""
        return self._lasts[step][-1] if step in self._logs else 0

    def events(self, step: str | None = None) -> Iterator[Log]:
        """What was logged since a restart, by one step or by all in turn."""
        for name in self.steps if step is None else [step]:
            yield from self._logs.get(name, ())

    def rows_before(self, step: str, number: int, *, count: int) -> list[LogRow]:
        """The last `count` rows that begin below line `number`."""
        logs, at = self._logs.get(step, []), bisect_left(self._lasts.get(step, []), number)
        rows: list[LogRow] = []
        for log in reversed(logs[: at + 1]):
            rows = [row for row in LogRow.of(log) if row.first < number] + rows
            if len(rows) >= count:
                break
        return rows[-count:]

    def rows_after(self, step: str, number: int, *, count: int) -> list[LogRow]:
        """The first `count` rows above line `number`; a gap is never the last of them."""
        logs, at = self._logs.get(step, []), bisect_left(self._lasts.get(step, []), number + 1)
        rows: list[LogRow] = []
        for log in logs[at:]:
            rows += [row for row in LogRow.of(log) if row.number > number]
            if len(rows) >= count:
                break
        rows = rows[:count]
        return rows[:-1] if rows and rows[-1].dropped else rows
