"""Wakes the followers of a run in this process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from initializer.model.pace import Pace

__all__ = ["Signal", "Signals"]

Look = Callable[[], bool]
"""Looks at what has come, and says whether that is all there is to do."""


class Signal:
    """Tells one follower that there is something to look at; many times before a look count as once."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._look: Look | None = None
        self._turn: asyncio.Handle | None = None

    def set(self) -> None:
        """There is something to look at."""
        if self._look is None or self._woken.is_set():
            self._woken.set()
        elif self._turn is None:
            pause_s = self._pace.pause_s(time.monotonic())
            if pause_s:
                self._turn = self._loop.call_later(pause_s, self._take_turn)
            else:
                self._turn = self._loop.call_soon(self._take_turn)

    def clear(self) -> None:
        """All there was has been looked at."""
        self._woken.clear()

    async def wait(self) -> None:
        """Wait until there is something to look at."""
        await self._woken.wait()

    async def next_turn(self, pace: Pace, look: Look | None = None) -> None:
        """Wait until there is something to look at, and the pace allows a look.

        What comes late enough waits for no clock, and as long as a `look` from here is enough, nor is the
        follower's task woken for it: either would cost as much as all else. Where a look raises, the
        follower is woken, to meet the same.
        """
        self._loop, self._pace, self._look = asyncio.get_running_loop(), pace, look
        try:
            await self._woken.wait()
        finally:
            self._look = None
            if self._turn is not None:
                self._turn.cancel()
                self._turn = None
        pause_s = pace.pause_s(time.monotonic())
        if pause_s:
            await asyncio.sleep(pause_s)
        pace.begin(time.monotonic())

    def _take_turn(self) -> None:
        self._turn = None
        assert self._look is not None  # or this would have been cancelled
        try:
            is_enough = self._look()
        except Exception:  # the follower's own turn meets the same, and raises it
            is_enough = False
        if is_enough:
            self._pace.begin(time.monotonic())
        else:
            self._woken.set()


class Signals:
    """The signals of runs, in order of their followers' coming."""

    def __init__(self) -> None:
        self._followed: defaultdict[str, dict[Signal, None]] = defaultdict(dict)

    def wake(self, run: str) -> None:
        """Tell every follower of the run to look again."""
        for signal in self._followed.get(run, ()):
            signal.set()

    @contextmanager
    def listen(self, run: str) -> Iterator[Signal]:
        """A signal that is set when there is something to look at; the listener clears it."""
        signal = Signal()
        self._followed[run][signal] = None
        try:
            yield signal
        finally:
            del self._followed[run][signal]
            if not self._followed[run]:
                del self._followed[run]
