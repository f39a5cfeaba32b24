"""The engine inside this process: a queue in memory and a fixed number of runs at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from initializer.cancellation import is_cancelled
from initializer.engines.engine import QueueFull
from initializer.journal.signal import Signals
from initializer.model.events import Reason
from initializer.model.parameters import Project

__all__ = ["InlineEngine", "open_inline_engine"]

MAX_WAITING_RUNS = 1000
_POSITIONS = "positions"

log = structlog.get_logger()

Perform = Callable[..., Awaitable[None]]
OnSubmit = Callable[[str, int], object]


class InlineEngine:
    """Runs wait here in order. A process that ends leaves them to recovery: their rows are unfinished.

    `on_submit` hears of each run, and of its attempt, as soon as it waits here.
    """

    def __init__(self, on_submit: OnSubmit | None = None) -> None:
        self._on_submit = on_submit
        self._waiting: deque[tuple[Project, int, Reason]] = deque()
        self._performing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopped = False
        self._signals = Signals()

    def check_room(self) -> None:
        if len(self._waiting) >= MAX_WAITING_RUNS:
            raise QueueFull(f"{MAX_WAITING_RUNS} projects are waiting already; try again in a few minutes")

    def submit(self, project: Project, *, attempt: int, reason: Reason) -> None:
        if self._on_submit is not None:
            self._on_submit(project.id, attempt)
        self._waiting.append((project, attempt, reason))
        self._signals.wake(_POSITIONS)

    def position(self, run: str) -> int | None:
        return next(
            (place for place, (project, _, _) in enumerate(self._waiting, 1) if project.id == run), None
        )

    async def follow_positions(self) -> AsyncIterator[None]:
        with self._signals.listen(_POSITIONS) as woken:
            while True:
                yield
                await woken.wait()
                woken.clear()

    def stop(self) -> list[tuple[str, int]]:
        """Begin no more runs; gives those that wait, with their attempts, and forgets them."""
        self._is_stopped = True
        waiting = [(project.id, attempt) for project, attempt, _ in self._waiting]
        self._waiting.clear()
        self._signals.wake(_POSITIONS)
        return waiting

    async def until_idle(self) -> None:
        """Wait until no run is performed."""
        await self._idle.wait()

    async def work(self, perform: Perform) -> None:
        """Perform waiting runs one after the other, for ever. A run that breaks takes no other with it."""
        async for _ in self.follow_positions():
            while self._waiting and not self._is_stopped:
                project, attempt, reason = self._waiting.popleft()
                self._signals.wake(_POSITIONS)
                self._performing += 1
                self._idle.clear()
                try:
                    await perform(project, attempt=attempt, reason=reason)
                except Exception:
                    log.exception("run broke off", project=project.id, attempt=attempt)
                except asyncio.CancelledError:
                    if is_cancelled():
                        raise
                    log.exception("run cancelled itself", project=project.id, attempt=attempt)
                finally:
                    self._performing -= 1
                    if not self._performing:
                        self._idle.set()


@asynccontextmanager
async def open_inline_engine(
    perform: Perform, *, max_concurrent_runs: int, on_submit: OnSubmit | None = None
) -> AsyncIterator[InlineEngine]:
    """An engine at work; on exit its runs are cut off where they stand, and the next process goes on."""
    engine = InlineEngine(on_submit)
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(engine.work(perform)) for _ in range(max_concurrent_runs)]
        try:
            yield engine
        finally:
            for worker in workers:
                worker.cancel()
