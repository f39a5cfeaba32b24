"""The engine inside this process: a queue in memory and a fixed number of runs at once."""

import asyncio
import bisect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime

import structlog

from initializer.cancellation import is_cancelled
from initializer.engines.engine import Perform, QueueFull
from initializer.journal.signal import Signals
from initializer.model.events import Reason
from initializer.projects.projects import ProjectRow

__all__ = ["InlineEngine", "open_inline_engine"]

MAX_WAITING_RUNS = 1000
_POSITIONS = "positions"

log = structlog.get_logger()

OnSubmit = Callable[[str, int], object]
PassOn = Callable[[str, int], Awaitable[object]]


class _Held:
    """A run that waits or is performed here."""

    def __init__(self, row: ProjectRow, reason: Reason) -> None:
        self.row, self.reason = row, reason
        self.cancelled = asyncio.Event()

    @property
    def run(self) -> str:
        return self.row.project.id

    @property
    def attempt(self) -> int:
        return self.row.attempt

    @property
    def turn(self) -> tuple[bool, datetime]:
        """By this runs wait: first those that a process left, which may be half done, then the oldest."""
        is_left = self.reason in (Reason.TAKEOVER, Reason.HANDOVER)
        return (not is_left, self.row.project.created_at)

    def is_of(self, run: str, attempt: int) -> bool:
        return (self.run, self.attempt) == (run, attempt)


class InlineEngine:
    """Runs wait here by their turn. A process that ends leaves them to recovery: their rows are unfinished.

    `on_submit` hears of each run, and of its attempt, as soon as it waits here. One that comes when no more
    are begun goes to `pass_on` instead. A run that is cancelled while it waits does not wait to be ended:
    it goes to a place that takes no others.
    """

    owns_runs = True

    def __init__(self, on_submit: OnSubmit | None = None, pass_on: PassOn | None = None) -> None:
        self._on_submit = on_submit
        self._pass_on = pass_on
        self._waiting: deque[_Held] = deque()
        self._ending: deque[_Held] = deque()
        self._performing: set[_Held] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopped = False
        self._signals = Signals()

    def check_room(self) -> None:
        if self._is_stopped:
            raise QueueFull("this server is about to stop; try again in a moment")
        if len(self._waiting) >= MAX_WAITING_RUNS:
            raise QueueFull(f"{MAX_WAITING_RUNS} projects are waiting already; try again in a few minutes")

    async def submit(self, row: ProjectRow, *, reason: Reason) -> None:
        if self._is_stopped and self._pass_on is not None:
            await self._pass_on(row.project.id, row.attempt)
            return
        if self._on_submit is not None:
            self._on_submit(row.project.id, row.attempt)
        bisect.insort(self._waiting, _Held(row, reason), key=lambda held: held.turn)
        if row.cancel_requested_at is not None:
            self.cancel(row.project.id, row.attempt)
        self._signals.wake(_POSITIONS)

    def cancel(self, run: str, attempt: int) -> None:
        for held in [it for it in self._waiting if it.is_of(run, attempt)]:
            held.cancelled.set()
            self._waiting.remove(held)
            self._ending.append(held)
            self._signals.wake(_POSITIONS)
        for held in self._performing:
            if held.is_of(run, attempt):
                held.cancelled.set()

    def position(self, run: str) -> int | None:
        return next((place for place, held in enumerate(self._waiting, 1) if held.run == run), None)

    async def follow_positions(self) -> AsyncGenerator[None, None]:
        with self._signals.listen(_POSITIONS) as signal:
            while True:
                yield
                await signal.wait()
                signal.clear()

    def stop(self) -> list[tuple[str, int]]:
        """Begin no more runs; gives those that wait, with their attempts, and forgets them."""
        self._is_stopped = True
        waiting = [(held.run, held.attempt) for held in (*self._waiting, *self._ending)]
        self._waiting.clear()
        self._ending.clear()
        self._signals.wake(_POSITIONS)
        return waiting

    async def until_idle(self) -> None:
        """Wait until no run is performed."""
        await self._idle.wait()

    async def work(self, perform: Perform, *, is_for_cancelled: bool = False) -> None:
        """Perform waiting runs one after the other, for ever. A run that breaks takes no other with it."""
        queue = self._ending if is_for_cancelled else self._waiting
        async with aclosing(self.follow_positions()) as following:
            async for _ in following:
                while queue and not self._is_stopped:
                    await self._perform(queue.popleft(), perform)

    async def _perform(self, held: _Held, perform: Perform) -> None:
        self._signals.wake(_POSITIONS)
        self._performing.add(held)
        self._idle.clear()
        try:
            await perform(held.row, held.reason, held.cancelled)
        except Exception:
            log.exception("run broke off", project=held.run, attempt=held.attempt)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            log.exception("run cancelled itself", project=held.run, attempt=held.attempt)
        finally:
            self._performing.remove(held)
            if not self._performing:
                self._idle.set()


@asynccontextmanager
async def open_inline_engine(
    perform: Perform,
    *,
    max_concurrent_runs: int,
    on_submit: OnSubmit | None = None,
    pass_on: PassOn | None = None,
) -> AsyncIterator[InlineEngine]:
    """An engine at work; on exit its runs are cut off where they stand, and the next process goes on."""
    engine = InlineEngine(on_submit, pass_on)
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(engine.work(perform)) for _ in range(max_concurrent_runs)]
        workers.append(group.create_task(engine.work(perform, is_for_cancelled=True)))
        try:
            yield engine
        finally:
            for worker in workers:
                worker.cancel()
