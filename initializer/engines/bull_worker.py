"""A worker of the queue: takes jobs, has them performed, and gives back what it cannot end itself."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis

from initializer.cancellation import cancellation_kept, is_cancelled
from initializer.engines.bullmq import JOB_FAULT, QUEUE, Ticket, give_back
from initializer.errors import InitializerError
from initializer.redis_client import REDIS_FAULTS

try:
    from bullmq import DelayedError, UnrecoverableError, Worker
except ImportError:  # see engines/bullmq.py
    DelayedError = UnrecoverableError = Worker = None

__all__ = ["BullWorker", "Card", "ComeAgain", "PerformJob", "RunFailed", "open_bull_worker"]

RETRY_MS = 500
"""How soon a worker asks a Redis again that does not answer, and a job that broke off comes again."""
UNLIMITED = 1_000_000
"""How often a job may be delivered again: what brings a run down again and again, its takeovers tell."""
CLOSING_LIMIT_S = 5
TELL_AGAIN_S = 5.0
"""How often a trouble that lasts is told: BullMQ tells of it ten times a second, for each place."""
_LOCK_NOT_RENEWED = "could not renew lock"
"""How BullMQ begins what it says of a lock that it did not find; it has no class of its own for that."""

log = structlog.get_logger()


class ComeAgain(InitializerError):
    """The run is not over and cannot be performed here now: the job comes again some time later."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"the job comes again in {after_s:g} s")
        self.after_s = after_s


class RunFailed(InitializerError):
    """The run has ended otherwise than well, and so does its job; the message is for people."""


class Card:
    """What operators see of a job."""

    def __init__(self, job: Any) -> None:
        self._job = job

    async def show(self, progress: Mapping[str, object], lines: list[str]) -> None:
        """Show where the run stands, and add lines to the job's log.

        A card that is gone, or out of reach, is no fault of the run's.
        """
        try:
            with cancellation_kept():
                await self._job.updateProgress(progress)
                for line in lines:
                    await self._job.log(line)
        except (*REDIS_FAULTS, JOB_FAULT) as error:
            log.info("job not updated", job=self._job.id, error=str(error))


PerformJob = Callable[[Ticket, Card], Coroutine[Any, Any, Mapping[str, object]]]
"""Perform a job; gives its result. Raises `RunFailed` and `ComeAgain`."""


class BullWorker:
    """Performs jobs, `concurrency` at once.

    A job's lock is BullMQ's sign of life, as a lease is the run's: both last as long, so that what a dead
    worker held is delivered again about when its run counts as lost.
    """

    def __init__(self, client: "Redis", perform: PerformJob, *, concurrency: int, lease_s: float) -> None:
        self._perform = perform
        self._is_leaving = False
        self._performing: set[asyncio.Task[Mapping[str, object]]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._quiet_until = -math.inf
        self._worker = Worker(
            QUEUE,
            self._process,
            {
                "connection": client,
                "autorun": False,
                "concurrency": concurrency,
                "lockDuration": round(lease_s * 1000),
                "stalledInterval": round(lease_s * 1000),
                "maxStalledCount": UNLIMITED,
                "runRetryDelay": RETRY_MS,
            },
        )
        self._worker.clientName = ""  # a name of its own tells more (`engines/presence.py`)
        self._worker.on("error", self._tell)
        self._worker.on("stalled", lambda job: log.info("job delivered again", job=job))

    async def work(self) -> None:
        """Take jobs, for ever."""
        await self._worker.run()
        if not self._is_leaving:
            raise RuntimeError("the worker of the queue broke off")

    async def leave(self) -> None:
        """Take no more jobs."""
        self._is_leaving = True
        await self._worker.pause(do_not_wait_active=True)

    async def until_idle(self) -> None:
        """Wait until no job is performed."""
        await self._idle.wait()

    async def close(self) -> None:
        """Cut off what is performed still, give it back to the queue, and end."""
        self._is_leaving = True
        for task in self._performing:
            task.cancel()
        try:
            async with asyncio.timeout(CLOSING_LIMIT_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("jobs not given back: they are delivered again once their locks have run out")
        await self._worker.close(force=True)

    async def _process(self, job: Any, token: str) -> Mapping[str, object]:
        """Perform one job, as BullMQ wants it done."""
        if self._is_leaving:  # it was on its way when this worker was asked to leave
            return await _leave(job, token, after_s=0)
        ticket = msgspec.convert(job.data, Ticket)
        task = asyncio.create_task(self._perform(ticket, Card(job)))
        self._performing.add(task)
        self._idle.clear()
        try:
            return await task
        except ComeAgain as again:
            return await _leave(job, token, after_s=again.after_s)
        except RunFailed as failed:
            raise UnrecoverableError(str(failed)) from None
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            # One that cancels itself comes again before all others, and must not come for ever.
            return await _leave(job, token, after_s=0 if self._is_leaving else RETRY_MS / 1000)
        finally:
            self._performing.discard(task)
            if not self._performing:
                self._idle.set()

    def _tell(self, error: object, job: Any = None, *_: object) -> None:
        sentence = str(error) or type(error).__name__
        if job is not None and isinstance(error, JOB_FAULT):  # its lock was lost: it is delivered again
            log.info("job not ended", job=job.id, error=sentence)
        elif sentence.startswith(_LOCK_NOT_RENEWED):  # lost too, or its job has just ended
            log.info("lock not renewed", error=sentence)
        elif self._is_leaving:  # BullMQ ends its connections while it waits at one
            log.info("queue left", error=sentence)
        elif time.monotonic() < self._quiet_until:
            log.debug("queue still in trouble", error=sentence)
        else:
            self._quiet_until = time.monotonic() + TELL_AGAIN_S
            log.warning("queue in trouble", error=sentence)


async def _leave(job: Any, token: str, *, after_s: float) -> Mapping[str, object]:
    """Leave a job to whoever comes. Raises `DelayedError`, which tells BullMQ so."""
    try:
        await give_back(job, token, after_s=after_s)
    except (*REDIS_FAULTS, JOB_FAULT) as error:  # the lock was lost: it is delivered again all the same
        log.info("job not given back", job=job.id, error=str(error))
    raise DelayedError


@asynccontextmanager
async def open_bull_worker(
    client: "Redis", perform: PerformJob, *, concurrency: int, lease_s: float
) -> AsyncIterator[BullWorker]:
    """A worker that takes jobs; on exit what it performs is cut off and given back."""
    worker = BullWorker(client, perform, concurrency=concurrency, lease_s=lease_s)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.work())
        try:
            yield worker
        finally:
            await worker.leave()
            await worker.close()
