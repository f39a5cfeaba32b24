"""A journal that tells what was read of it."""

from initializer.journal.memory import MemoryJournal
from initializer.model.events import Event, EventId

__all__ = ["CountedJournal"]


class CountedJournal(MemoryJournal):
    """Notes behind which event each reading began."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[EventId] = []

    async def read(self, run: str, *, after: EventId = "") -> list[Event]:
        self.reads.append(after)
        return await super().read(run, after=after)
