"""A queue of virtual time: it delivers each job as often as it likes, and forgets what Redis forgets."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from virtual_servers import Redis, Timeline, Way

from initializer.engines.bull_worker import ComeAgain, RunFailed
from initializer.engines.bullmq import BullEngine, QueueUnavailable, Ticket, job_id_of
from initializer.journal.signal import Signals
from initializer.model.events import Reason
from initializer.projects.projects import ProjectRow

__all__ = ["Queue", "QueueEngine", "QueueWorker"]


@dataclass
class Job:
    """A job: it waits, some worker is at it, or it has ended."""

    ticket: Ticket
    is_waiting: bool = True
    workers: int = 0


class Queue:
    """The queue of all processes."""

    def __init__(self, timeline: Timeline, redis: Redis) -> None:
        self.jobs: dict[str, Job] = {}
        self.is_still = False
        self.redis = redis
        self._timeline = timeline

    def next_job(self) -> Job | None:
        """The job to deliver: one that waits, else the last one, once more."""
        waiting = (job for job in self.jobs.values() if job.is_waiting)
        return next(waiting, None) or next(reversed(self.jobs.values()), None)

    def come_again(self, job: Job, *, after_s: float) -> None:
        def wait() -> None:
            job.is_waiting = True

        self._timeline.after(after_s, wait)


class QueueEngine(BullEngine):
    """`BullEngine` over that queue."""

    def __init__(self, queue: Queue, way: Way) -> None:
        self._jobs = queue.jobs
        self._redis, self._way = queue.redis, way
        self._performing: dict[tuple[str, int], asyncio.Event] = {}
        self._signals = Signals()

    def check_room(self) -> None:
        pass

    async def submit(self, row: ProjectRow, *, reason: Reason) -> None:
        with suppress(QueueUnavailable):
            self._ask().setdefault(job_id_of(row), Job(_ticket_of(row)))

    async def submit_again(self, row: ProjectRow, *, reason: Reason) -> None:
        job = self._ask().setdefault(job_id_of(row), Job(_ticket_of(row)))
        job.is_waiting = job.is_waiting or not job.workers

    async def withdraw(self, row: ProjectRow) -> None:
        job = self._ask().get(job_id_of(row))
        if job is not None and not job.workers:
            del self._jobs[job_id_of(row)]

    def is_queued(self, run: str) -> bool:
        return any(job.is_waiting for job in self._jobs.values())

    def position(self, run: str) -> int | None:
        return 1 if self.is_queued(run) else None

    def _ask(self) -> dict[str, Job]:
        if not self._way.is_through:
            raise QueueUnavailable("gone")
        return self._jobs


class QueueWorker:
    """What `BullWorker` makes of the jobs that it is given."""

    def __init__(self, queue: Queue, perform: Callable[[Ticket, Any], Awaitable[object]], way: Way) -> None:
        self.is_leaving = False
        self._queue, self._perform, self._way = queue, perform, way
        self._performing: dict[asyncio.Task[Any], None] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def take(self, job: Job, *, lock_s: float) -> None:
        """Perform a job; that of a dead process comes again once its lock has run out."""
        if self.is_leaving:
            return
        task = asyncio.current_task()
        assert task is not None
        job.is_waiting = False
        job.workers += 1
        self._performing[task] = None
        self._idle.clear()
        try:
            await self._perform(job.ticket, Card())
        except ComeAgain as again:
            self._queue.come_again(job, after_s=again.after_s)
        except RunFailed:
            pass
        except asyncio.CancelledError:
            self._queue.come_again(job, after_s=lock_s if self._way.is_cut else 0)
            raise
        finally:
            job.workers -= 1
            del self._performing[task]
            if not self._performing:
                self._idle.set()

    async def until_idle(self) -> None:
        await self._idle.wait()

    async def close(self) -> None:
        """Cut off what is performed still."""
        for task in list(self._performing):
            task.cancel()
        await self._idle.wait()


class Card:
    """Operators see nothing."""

    async def show(self, progress: Mapping[str, object], lines: list[str]) -> None:
        pass


def _ticket_of(row: ProjectRow) -> Ticket:
    return Ticket(project=row.project.id, attempt=row.attempt, try_id=row.try_id)
