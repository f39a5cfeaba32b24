"""Shows on a job of a queue where its run stands: one more fold over the journal."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Protocol

import structlog

from initializer.errors import InitializerError
from initializer.journal.journal import Journal
from initializer.model.events import (
    Event,
    Progressed,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    attempt_of,
    is_final,
)
from initializer.model.parameters import Project
from initializer.model.progress import Progress, advance

__all__ = ["Mirror", "Mirrored", "mirroring"]

PERIOD_S = 1.0
"""A job is changed at most this often."""
LAST_LOOK_S = 2.0
"""How long a job's end waits for the last events of its run."""

log = structlog.get_logger()


class Mirrored(Protocol):
    """What shows a run to operators."""

    async def show(self, progress: Mapping[str, object], lines: list[str]) -> None:
        """Show where the run stands; add lines to what was told of it."""


class Mirror:
    """Follows one attempt. What earlier ones said, and how they ended, has been told by them."""

    def __init__(self, project: Project, attempt: int, journal: Journal, mirrored: Mirrored) -> None:
        self._project = project
        self._attempt = attempt
        self._journal = journal
        self._mirrored = mirrored
        self._progress = Progress.waiting(project.parameters.pipeline)
        self.is_over = asyncio.Event()

    async def keep(self) -> None:
        """Follow until the run's last event, of this attempt or of one that took the run over."""
        try:
            async with aclosing(self._journal.follow(self._project.id)) as following:
                async for events in following:
                    lines = self._receive(events)
                    if not events or attempt_of(events[-1].id) < self._attempt:
                        continue  # another try begins with a journal that ends as the one before it did
                    await self._mirrored.show(_shown(self._progress), lines)
                    if is_final(events[-1]):
                        return
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PERIOD_S):
                            await self.is_over.wait()
        except InitializerError as error:  # the run itself has no need of it
            log.info("run not mirrored", project=self._project.id, error=str(error))

    def end(self) -> None:
        """The run is over: wait no more between the last looks."""
        self.is_over.set()

    def _receive(self, events: list[Event]) -> list[str]:
        lines = []
        for event in events:
            if event.index > self._progress.index:
                self._progress = advance(self._progress, event)
                if attempt_of(event.id) == self._attempt:
                    lines += _told(event)
        return lines


@asynccontextmanager
async def mirroring(
    project: Project, attempt: int, journal: Journal, mirrored: Mirrored
) -> AsyncIterator[Mirror]:
    """A mirror at work; once it was told that the run is over, it gets a moment for the last events."""
    mirror = Mirror(project, attempt, journal, mirrored)
    task = asyncio.create_task(mirror.keep(), name=f"mirror of {project.id}")
    try:
        yield mirror
        if mirror.is_over.is_set():
            await asyncio.wait([task], timeout=LAST_LOOK_S)
    finally:
        task.cancel()
        await asyncio.wait([task])


def _shown(progress: Progress) -> dict[str, object]:
    current = progress.current
    return {
        "progress": progress.percent,
        "step": current.spec.name if current else "",
        "message": current.message if current else "",
    }


def _told(event: Event) -> list[str]:
    """What a job's log says of an event: steps and messages, no log lines; the app has those."""
    match event:
        case Started(reason=reason):
            return [f"attempt {attempt_of(event.id)}: {reason.value}"]
        case StepStarted(step=step):
            return [f"{step} started"]
        case Progressed(step=step, message=message) if message:
            return [f"{step}: {message}"]
        case StepCompleted(step=step, duration_ms=duration_ms):
            return [f"{step} completed in {duration_ms} ms"]
        case StepFailed(step=step, error=error):
            return [f"{step} failed: {error}"]
        case _:
            return []
