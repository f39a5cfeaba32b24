"""Wakes the followers of a run in this process."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Signals"]


class Signals:
    """One wake-up per run and follower, in order of their coming; many before a look count as one."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, dict[asyncio.Event, None]] = defaultdict(dict)

    def wake(self, run: str) -> None:
        """Tell every follower of the run to look again."""
        for event in self._waiting.get(run, ()):
            event.set()

    @contextmanager
    def listen(self, run: str) -> Iterator[asyncio.Event]:
        """An event that is set when there is something to look at; the listener clears it."""
        event = asyncio.Event()
        self._waiting[run][event] = None
        try:
            yield event
        finally:
            del self._waiting[run][event]
            if not self._waiting[run]:
                del self._waiting[run]
