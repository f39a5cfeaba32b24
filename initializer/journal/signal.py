"""Wakes the followers of a run in this process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from initializer.model.pace import Pace

__all__ = ["Signals", "next_turn"]


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


async def next_turn(woken: asyncio.Event, pace: Pace) -> None:
    """Wait until there is something to look at, and the pace allows a look.

    What comes late enough waits for no clock, which would cost as much as the look.
    """
    await woken.wait()
    pause_s = pace.pause_s(time.monotonic())
    if pause_s:
        await asyncio.sleep(pause_s)
    pace.begin(time.monotonic())
